"""A small plot: how many visual tokens each decoder layer ran on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunus.results.trace import TraceEntry

_FULL, _BLIND = "#4878a8", "#b8c8da"  # bars: as usual; text does not look at the image there
_NUMBER = 0.24  # inches that the number of a layer needs
_LETTER = 0.06  # inches of a letter at 7 points


@dataclass(frozen=True)
class Strip:
    """Visual tokens per layer, and the layers in whose attention text does not see all of them."""

    counts: Sequence[float]
    blind: frozenset[int] = frozenset()

    @classmethod
    def of(cls, trace: Sequence[TraceEntry], counts: Sequence[float]) -> Strip | None:
        """For one prompt; None where all layers are alike, which needs no plot."""
        edits = [pair for entry in trace for pair in entry.edits.items()]
        blind = frozenset(layer for layer, edit in edits if edit.text != "keep")
        return cls(counts, blind) if blind or len(set(counts)) > 1 else None


def draw_strip(axis: Any, strip: Strip, width: float, most: float = 1, ink: str = "black") -> None:
    """Draw ``strip`` on a matplotlib ``axis`` that is ``width`` inches wide: a bar per layer, and
    its number where it differs from that of the layer before and there is room for it. There is
    room for bars of ``most`` tokens; letters and lines are of colour ``ink``."""
    layers = range(len(strip.counts))
    colours = [_BLIND if layer in strip.blind else _FULL for layer in layers]
    axis.bar(layers, strip.counts, width=0.85, color=colours)
    top = max([*strip.counts, most])
    axis.set_ylim(0, 1.25 * top)
    axis.set_xlim(-0.6, len(strip.counts) - 0.4)
    free, height = 0.0, 0.0  # first layer whose number would not run into the last one, its height
    for layer in layers:
        if layer == 0 or strip.counts[layer] != strip.counts[layer - 1]:
            at, text = strip.counts[layer] + 0.03 * top, f"{strip.counts[layer]:g}"
            if layer >= free or abs(at - height) > 0.2 * top:
                axis.text(layer - 0.42, at, text, fontsize=7, ha="left", va="bottom", color=ink)
                height, free = at, layer + _LETTER * (len(text) + 1) * len(strip.counts) / width
    every = max(1, -int(-len(strip.counts) * _NUMBER // width))
    axis.set_xticks(list(layers)[::every])
    axis.tick_params(labelsize=7, length=2, colors=ink)
    axis.set_yticks([])
    for side in ("top", "left", "right"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(ink)
    axis.set_xlabel("decoder layer", fontsize=7, labelpad=1, color=ink)
    about = "visual tokens per layer"
    if strip.blind:
        about += " (pale: text does not see all of them)"
    axis.set_title(about, fontsize=8, loc="left", color=ink)
