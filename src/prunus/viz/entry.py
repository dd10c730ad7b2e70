"""One entry of a trace on one frame of one image: what it left there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.results.events import in_order
from prunus.results.trace import TraceEntry
from prunus.viz.overlay import dim_dropped, outlined
from prunus.viz.pane import pane_of
from prunus.viz.regions import merged_regions, spread_kept
from prunus.viz.seen import Picture

_CLS = np.array([1.0, 0.25, 0.65], dtype=np.float32)  # around the place that CLS took


@dataclass(frozen=True)
class Spot:
    """One picture of one image of one sample: of a temporal slice, or a part, number ``pane``; and
    the ``picture`` that the model saw there."""

    picture: Picture
    sample: int = 0
    image: int = 0
    pane: int = 0

    def grid(self, entry: TraceEntry) -> AnyGrid:
        """Where this image's tokens lie.

        Raises:
            PrunusError: the trace has no such image, slice or part.
        """
        grids = entry.grid[self.sample]
        if self.image >= len(grids):
            raise PrunusError(
                f"the trace knows {len(grids)} images, picture {self.image + 1} is one more"
            )
        grid = grids[self.image]
        pane_of(grid, self.pane)
        return grid


@dataclass(frozen=True)
class Before:
    """What earlier entries left: ``kept[sample][image]`` and ``merged_into[sample][image]`` of a
    merge; None where there was none."""

    kept: Any = None
    merged_into: Any = None

    def count(self, entry: TraceEntry, sample: int) -> int:
        """Visual tokens of ``sample`` that ``entry`` met."""
        if self.kept is None:
            return sum(grid.size for grid in entry.grid[sample])
        return sum(len(tokens) for tokens in self.kept[sample])

    def then(self, entry: TraceEntry) -> Before:
        """What is left behind ``entry``."""
        if entry.place == "attention":
            return self
        return Before(entry.kept, entry.merged_into or self.merged_into)

    def cells(self, tokens: Any, spot: Spot, grid: AnyGrid) -> NDArray[np.int64]:
        """The cells that ``tokens`` stand for."""
        if self.merged_into is None:
            return np.asarray(tokens, dtype=np.int64)
        return spread_kept(tokens, self.merged_into[spot.sample][spot.image], grid)

    def spread(self, scores: Any, spot: Spot) -> NDArray[np.float64]:
        """``scores`` ``[N]`` of tokens on all cells that each stands for; NaN where none does."""
        values = np.asarray(scores, dtype=np.float64)
        if self.merged_into is None:
            return values
        owners = np.asarray(self.merged_into[spot.sample][spot.image], dtype=np.int64)
        return np.where(owners >= 0, values[owners], np.nan)


@dataclass(frozen=True)
class Made:
    """What a cut made of one image: tokens that are ``plain``, what they were; that are ``new``,
    sums of several; and that are the tower's ``cls`` token. Original indices."""

    plain: Sequence[int]
    new: Sequence[int]
    cls: Sequence[int]

    @classmethod
    def at(cls, entry: TraceEntry, sample: int, image: int) -> Made | None:
        """None where ``entry`` made no new tokens at a cut."""
        if entry.mix is None:
            return None
        into, of, _ = (np.asarray(part) for part in entry.mix[sample][image])
        summary = {int(token) for token in into[of == entry.grid[sample][image].size]}
        changed = {int(token) for token in into} - summary
        kept = [int(token) for token in entry.kept[sample][image]]
        return cls(
            [token for token in kept if token not in changed | summary],
            sorted(changed),
            sorted(summary),
        )


def draw_entry(
    entry: TraceEntry, spot: Spot, before: Before, colour: float = 0.0
) -> tuple[Picture, str]:
    """What ``entry`` left of one frame, drawn, and the word for it ("kept" or "left, merged").
    Dropped patches keep a share of their ``colour``."""
    grid, kept = spot.grid(entry), entry.kept[spot.sample][spot.image]
    if entry.merged_into is not None:
        own = entry.merged_into[spot.sample][spot.image]
        made = Made.at(entry, spot.sample, spot.image)
        plain = () if made is None else made.plain
        drawn = merged_regions(spot.picture, own, grid, spot.pane, plain)
        if made is not None and made.cls:
            drawn = outlined(drawn, made.cls, grid, spot.pane, _CLS)
        return drawn, "left, merged"
    shown = before.cells(kept, spot, grid)
    return dim_dropped(spot.picture, shown, grid, spot.pane, colour), "kept"


def made_note(entry: TraceEntry, sample: int) -> str:
    """What is seen where a cut made new tokens of one sample's; "" where none did."""
    made = [Made.at(entry, sample, image) for image in range(len(entry.kept[sample]))]
    new = sum(len(one.new) for one in made if one)
    summary = sum(len(one.cls) for one in made if one)
    if not new + summary:
        return ""
    notes = []
    if plain := sum(len(one.plain) for one in made if one):
        notes.append(f"{plain} as they were")
    if new:
        notes.append(f"{new} made of several (blue borders, mean colour)")
    if summary:
        notes.append(f"{summary} CLS of the vision tower, in a free place (pink)")
    owners = [own for image in (entry.merged_into or [[]])[sample] for own in image.tolist()]
    if gone := sum(owner < 0 for owner in owners):
        notes.append(f"{gone} gone (grey)")
    whole = f"In all {len(made)} images: " if len(made) > 1 else ""
    return f"{whole}{'; '.join(notes)}."


def last_removal(
    trace: Sequence[TraceEntry], leaves: int | None = None
) -> tuple[TraceEntry, Before] | None:
    """The entry that removed tokens last and what was there before it, or None; if ``leaves`` is a
    sample, the last that left any of its tokens."""
    found, before = None, Before()
    for entry in in_order(trace):
        if entry.place != "attention":
            if leaves is None or any(len(own) for own in entry.kept[leaves]):
                found = (entry, before)
            before = before.then(entry)
    return found
