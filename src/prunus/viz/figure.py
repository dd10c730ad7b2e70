"""Panels as one PNG, with a strip of visual tokens per layer below; this needs matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunus.errors import PrunusError
from prunus.viz.png import write_figure
from prunus.viz.seen import Picture
from prunus.viz.strip import Strip, draw_strip


@dataclass(frozen=True)
class Panel:
    """One picture of a figure, with a ``title`` above and optional ``caption`` lines below."""

    picture: Picture
    title: str
    caption: str = ""


_LINE = 0.14  # inches: height of a caption's line at 7 points
_GAP, _TOP = 0.12, 0.3  # inches: between panels, and above one for its title
_HEAD = 0.35  # inches: the line above everything
_STRIP = (0.3, 0.9, 0.4)  # inches: above the strip, its height, and below it for its numbers
_STRIP_WIDTH = 6.5  # inches, at most: bars of a few layers need not be broad


def draw_panels(
    rows: Sequence[Sequence[Panel]],
    path: str | Path,
    *,
    title: str = "",
    size: float = 2.6,
    strip: Strip | None = None,
    few_colours: bool = False,
) -> Path:
    """Write all panels as one PNG, ``rows`` below each other; missing folders are made.

    Args:
        rows: panels; rows may differ in length.
        path: the file to write.
        title: a line above everything.
        size: width of a panel in inches (at 150 dots per inch), and the most of its height.
        strip: visual tokens per decoder layer, drawn below everything.
        few_colours: write 256 colours, see :func:`prunus.viz.png.write_figure`.

    Raises:
        PrunusError: nothing to draw, a path that is no ``.png``, or matplotlib is not installed.
        PrunusFileError: the file cannot be written; what was there before is unchanged.
    """
    if not rows or not any(rows):
        raise PrunusError("there are no panels to draw")
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise PrunusError(f"cannot write {str(path)!r}: the picture is a PNG, give a name in .png")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PrunusError(
            "pictures need matplotlib: install it with `pip install matplotlib`"
        ) from error

    columns = max(len(row) for row in rows)
    captions = [
        [_wrap(panel.caption, size * (columns if _alone(row) else 1)) for panel in row]
        for row in rows
    ]
    below = [
        max((_LINE * (text.count("\n") + 1.5) for text in row if text), default=_GAP)
        for row in captions
    ]
    width = columns * (size + _GAP) + _GAP
    talls = [size * _aspect(row) for row in rows]
    height = len(rows) * _TOP + sum(talls) + sum(below)
    height += (_HEAD if title else 0.0) + (sum(_STRIP) if strip else 0.0)
    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    y = height - (_HEAD if title else 0.0)
    for row, texts, space, tall in zip(rows, captions, below, talls, strict=True):
        y -= _TOP + tall
        for index, (panel, text) in enumerate(zip(row, texts, strict=True)):
            x = _GAP + index * (size + _GAP)
            axis = figure.add_axes((x / width, y / height, size / width, tall / height))
            axis.set_axis_off()
            axis.set_anchor("S")  # a wide picture stands on its caption
            axis.imshow(panel.picture, interpolation="nearest")
            axis.set_title(panel.title, fontsize=8)
            figure.text(x / width, (y - 0.05) / height, text, fontsize=7, va="top")
        y -= space
    if strip is not None:
        _, bars, numbers = _STRIP
        wide = min(_STRIP_WIDTH, width - 2 * _GAP)
        box = (_GAP / width, numbers / height, wide / width, bars / height)
        draw_strip(figure.add_axes(box), strip, wide)
    if title:
        figure.text(0.5, 1 - 0.08 / height, title, fontsize=10, ha="center", va="top")
    return write_figure(figure, path, few_colours)


def _aspect(row: Sequence[Panel]) -> float:
    """Height of a row by the width of its panels: that of its tallest picture, at most 1."""
    shapes = [panel.picture.shape for panel in row]
    return min(1.0, max((shape[0] / shape[1] for shape in shapes), default=1.0))


def _alone(row: Sequence[Panel]) -> bool:
    """Whether the first panel alone has a caption, which may then run below the others."""
    return len(row) > 0 and not any(panel.caption for panel in row[1:])


def _wrap(caption: str, size: float) -> str:
    """``caption`` broken into lines that fit below a panel of ``size`` inches."""
    return "\n".join(
        textwrap.fill(line, int(17 * size), subsequent_indent="    ")
        for line in caption.splitlines()
    )
