"""One-shot: the control of Stepwise, a learned score for every token at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from prunus.method import Selection, View
from prunus.method.budget import Keep, check_keep
from prunus.selector.config import Kind
from prunus.selector.learned import Learned, Loaded


@dataclass(frozen=True)
class OneShot(Learned):
    """The encoder of Stepwise with one score per token instead of the pointer decoder, trained
    through the same gate: what the paper does not compare with. It cannot stop by itself."""

    name = "one-shot"
    paper = "control (the gate of arXiv 2606.16067 and 2605.28051)"
    summary = "Stepwise's encoder and gate, all tokens scored at once"
    kind_of_selector: ClassVar[Kind] = "one-shot"

    selector: str | Path | Loaded | None = field(
        default=None, metadata={"help": "folder or name; default: what ships for the model"}
    )
    keep: Keep = field(default=1 / 9, metadata={"help": "tokens per image, or share of them"})

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def select(self, stage: int, view: View) -> Selection:
        count = view.count or 0
        if count >= view.present.shape[1]:
            return Selection(Selection.everything(view).kept)
        return self.chosen(view, [count] * len(view.owners))
