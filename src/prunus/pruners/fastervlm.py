"""FasterVLM: the tokens that CLS attends to at the end of the vision tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from prunus.method import Cut, Method, Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.method.signals import TowerAttention


@dataclass(frozen=True)
class FasterVLM(Method):
    """FasterVLM (arXiv 2412.01818), before the language model: the tokens with most attention from
    CLS in the last block of the tower that is read, mean over heads. Where there is no CLS, with
    most attention received there, of the patches that make up a token together (what its authors
    advise).

    Every tile of a picture and every frame of a video has a softmax of its own: each keeps its
    share of the budget, as in the published branches for LLaVA-NeXT and Video-LLaVA.
    ``per="input"`` ranks all of them together instead. Published budgets are 432, 288, 144, 58 and
    29 of 576; VisPruner is a later method by the same authors.
    """

    name = "fastervlm"
    paper = "arXiv 2412.01818"
    summary = "what CLS attends to at the end of the vision tower"
    presets = {str(keep): {"keep": keep} for keep in (432, 288, 144, 58, 29, 192, 128, 64)}

    keep: Keep = field(default=0.25, metadata={"help": "tokens per image, or share of them"})
    per: Literal["tile", "input"] = field(
        default="tile", metadata={"help": "each tile and frame its share | ranked together"}
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def cuts(self, depth: int) -> Sequence[Cut]:
        return [Cut(None, (TowerAttention(),))]

    def score(self, stage: int, view: View) -> Tensor:
        return view[TowerAttention()]

    def select(self, stage: int, view: View) -> Selection:
        return self.rank(stage, view, self.score(stage, view), each=self.per == "tile")
