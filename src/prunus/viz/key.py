"""What the colours of a picture mean, in one line below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.results.trace import TraceEntry
from prunus.viz.overlay import heat_colours
from prunus.viz.regions import BORDER

#: Inches: height of the line, width of a swatch, and of a letter at 7 points.
HEIGHT = 0.34
_SWATCH, _LETTER = 0.3, 0.062
_GREY = (0.68, 0.68, 0.68)


@dataclass(frozen=True)
class Key:
    """What is there to be explained.

    Attributes:
        heat: importance is drawn as a heat map of ranks (other maps say in their captions what
            they show); gone: patches of removed tokens are grey; merged:
            regions of tokens that were made of several have borders.
    """

    heat: bool = False
    gone: bool = False
    merged: bool = False

    @classmethod
    def of(cls, trace: Sequence[TraceEntry]) -> Key:
        """For the panels of ``trace``."""
        removed = [entry for entry in trace if entry.place != "attention"]
        merged = [entry.merged_into is not None for entry in removed]
        return cls(
            any(one.scores is not None and one.labels is None for one in removed),
            not all(merged),
            any(merged),
        )

    def words(self) -> list[tuple[str, str]]:
        """Kinds of swatches, with what is said of each."""
        found = []
        if self.heat:
            found.append(("heat", "least to most important, by rank"))
        if self.gone:
            found.append(("gone", "removed (grey); what is kept has its own colours"))
        if self.merged:
            found.append(("merged", "one token for all inside a blue border, in their mean colour"))
        return found

    def lines(self, width: float) -> list[list[tuple[str, str]]]:
        """The words in lines that fit into ``width`` inches."""
        found: list[list[tuple[str, str]]] = []
        left = 0.0
        for kind, text in self.words():
            need = _wide(text)
            if not found or need > left:
                found.append([])
                left = width
            found[-1].append((kind, text))
            left -= need
        return found


def _wide(text: str) -> float:
    return _SWATCH + 0.35 + _LETTER * len(text)


def draw_key(figure: Any, key: Key, left: float, bottom: float, size: tuple[float, float]) -> None:
    """Draw the lines of ``key`` on a matplotlib ``figure`` of ``size`` inches, the last of them
    ``bottom`` inches high; its text has the colour of the figure's other texts."""
    width, height = size
    lines = key.lines(width - 2 * left)
    for row, line in enumerate(lines):
        x, y = left, bottom + (len(lines) - 1 - row) * HEIGHT
        for kind, text in line:
            box = (x / width, (y + 0.08) / height, _SWATCH / width, 0.14 / height)
            axis = figure.add_axes(box)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.imshow(_swatch(kind), aspect="auto", interpolation="nearest")
            for side in axis.spines.values():
                side.set_linewidth(1.2 if kind == "merged" else 0.4)
                side.set_edgecolor(BORDER if kind == "merged" else _GREY)
            at = (x + _SWATCH + 0.08) / width
            figure.text(at, (y + 0.15) / height, text, fontsize=7, va="center")
            x += _wide(text)


def _swatch(kind: str) -> Any:
    if kind == "heat":
        return heat_colours(np.linspace(0, 1, 32)[None])
    colour = _GREY if kind == "gone" else (0.8, 0.82, 0.84)
    return np.array([[colour]], dtype=np.float32)
