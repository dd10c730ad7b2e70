"""What happened: one entry per selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from prunus.grid import AnyGrid

if TYPE_CHECKING:
    from prunus.method import Edit


@dataclass(frozen=True, repr=False)
class TraceEntry:
    """One selection made for one prompt (all samples of its batch).

    ``kept[sample][image]`` are ascending indices (int64, CPU) into that image's *original* tokens,
    ``scores[sample][image]`` the float32 scores over those original tokens (NaN where a token was
    already gone) or None if the method has none, ``grid[sample][image]`` where the tokens lie,
    ``kind[sample][image]`` what they show: "image" or "video".
    ``merged_into[sample][image]``, for methods that merge, gives for every original token the
    original index of the survivor that now stands for it (-1: none does); ``mix[sample][image]``,
    where that happened at a cut, how the new tokens were made: original indices of survivors and of
    what went into them (the number of all tokens stands for the tower's CLS feature), and weights
    (all other survivors stayed as they were), in the features of ``space``;
    ``order[sample][image]``, where the model reads them in another order, original indices in it;
    ``compact``: positions were closed up from here on; ``steps[sample][image]``, where that
    happened inside the vision tower, the merges in their order: ``(block, sources, destinations)``,
    original indices, with ``by_size`` (mean of original tokens, or of those that meet) and
    ``proportional`` (later attention counted tokens by their size). ``trim_cache`` tells whether
    earlier layers dropped the tokens from their cache too. ``labels[sample][image]``, for methods
    that decide where they act, is one word for what happened to it here, or "" where nothing did.
    ``place`` is "encoder" (inside the vision tower), "features", "decoder", or "attention": nothing
    was removed, but the attention of the layers in ``edits`` was edited and the caches of those in
    ``forgets`` lost all visual tokens after the prompt (``layer`` is the first of them).
    """

    place: str
    layer: int | None
    method: str
    kept: list[list[Tensor]]
    grid: list[list[AnyGrid]]
    kind: list[list[str]]
    scores: list[list[Tensor]] | None = None
    merged_into: list[list[Tensor]] | None = None
    steps: list[list[list[tuple[int, Tensor, Tensor]]]] | None = None
    trim_cache: bool = False
    by_size: bool = True
    proportional: bool = False
    labels: list[list[str]] | None = None
    edits: Mapping[int, Edit] = field(default_factory=dict)
    forgets: Sequence[int] = ()
    mix: list[list[tuple[Tensor, Tensor, Tensor]]] | None = None
    order: list[list[Tensor]] | None = None
    space: Literal["model", "tower"] = "model"
    compact: bool = False

    def __repr__(self) -> str:
        """One line: which method, where, and what it left; no tensors."""
        where = self.place if self.layer is None else f"{self.place}, layer {self.layer}"
        kept = sum(len(tokens) for images in self.kept for tokens in images)
        there = sum(grid.size for grids in self.grid for grid in grids)
        images = sum(map(len, self.kept))
        what = f"{kept} of {there} visual tokens"
        if self.place == "attention":
            what = f"{what} there, {len(self.edits)} layers edited"
        return (
            f"<{self.method} at {where}: {what} of {images} image{'s' * (images != 1)} in "
            f"{len(self.kept)} sample{'s' * (len(self.kept) != 1)}>"
        )

    def of(self, sample: int) -> TraceEntry:
        """The same selection as a prompt of only this ``sample`` would have made it."""
        own = {
            name: None if (value := getattr(self, name)) is None else [value[sample]]
            for name in (
                "kept",
                "grid",
                "kind",
                "scores",
                "merged_into",
                "steps",
                "labels",
                "mix",
                "order",
            )
        }
        return replace(self, **own)  # type: ignore[arg-type]
