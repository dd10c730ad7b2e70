"""Panels as one PNG, with a strip of visual tokens per layer below; this needs matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunus.errors import PrunusError
from prunus.viz.key import HEIGHT as KEY_HEIGHT
from prunus.viz.key import Key, draw_key
from prunus.viz.png import write_figure
from prunus.viz.seen import Picture
from prunus.viz.strip import Strip, draw_strip


@dataclass(frozen=True)
class Panel:
    """One picture of a figure, with a ``title`` above and optional ``caption`` lines below.
    ``right`` says of each line of the caption whether it is a right answer, or None where that is
    not known or it is none: right ones get a tick, wrong ones a cross, and a colour."""

    picture: Picture
    title: str
    caption: str = ""
    right: Sequence[bool | None] = ()


_LINE = 0.14  # inches: height of a caption's line at 7 points
_GAP, _TOP = 0.12, 0.3  # inches: between panels, and above one for its title
_HEAD = (0.17, 0.19)  # inches: above everything, around its lines and each of them
#: Of right and wrong answers: the sign, and its colours on white and on a dark ground.
_MARKS = {True: ("\u2713 ", "#1a7f37", "#3fb950"), False: ("\u2717 ", "#cf222e", "#ff7b72")}
_STRIP = (0.3, 0.9, 0.4)  # inches: above the strip, its height, and below it for its numbers
_STRIP_WIDTH = 6.5  # inches, at most: bars of a few layers need not be broad


def draw_panels(
    rows: Sequence[Sequence[Panel]],
    path: str | Path,
    *,
    title: str = "",
    size: float = 2.6,
    strip: Strip | None = None,
    key: Key | None = None,
    tallest: float = 1.0,
    few_colours: bool = False,
    dark: bool = False,
) -> Path:
    """Write all panels as one PNG, ``rows`` below each other; missing folders are made.

    Args:
        rows: panels; rows may differ in length.
        path: the file to write.
        title: lines above everything, the first of them in bold; long ones are broken.
        size: width of a panel in inches (at 150 dots per inch).
        strip: visual tokens per decoder layer, drawn below the panels.
        key: what colours mean, below everything.
        tallest: most height of a panel, by its width.
        few_colours: write 256 colours, see :func:`prunus.viz.png.write_figure`.
        dark: light text on a dark ground.

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
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PrunusError(
            "pictures need matplotlib: install it with `pip install matplotlib`"
        ) from error

    columns = max(len(row) for row in rows)
    captions = [
        [_wrapped(panel, size * (columns if _alone(row) else 1), dark) for panel in row]
        for row in rows
    ]
    below = [
        max((_LINE * (len(lines) + 1.5) for lines in row if lines), default=_GAP)
        for row in captions
    ]
    width = columns * (size + _GAP) + _GAP
    head = _broken(title, width)
    talls = [size * _aspect(row, tallest) for row in rows]
    height = len(rows) * _TOP + sum(talls) + sum(below)
    top = _HEAD[0] + _HEAD[1] * len(head) if head else 0.0
    bottom = KEY_HEIGHT * len(key.lines(width - 2 * _GAP)) if key else 0.0
    height += top + bottom + (sum(_STRIP) if strip else 0.0)
    ink, ground = ("#e6edf3", "#0d1117") if dark else ("black", "white")
    with rc_context({"text.color": ink, "axes.titlecolor": ink, "axes.labelcolor": ink}):
        figure = Figure(figsize=(width, height), dpi=150, facecolor=ground)
        FigureCanvasAgg(figure)
        y = height - top
        for row, texts, space, tall in zip(rows, captions, below, talls, strict=True):
            y -= _TOP + tall
            for index, (panel, lines) in enumerate(zip(row, texts, strict=True)):
                x = _GAP + index * (size + _GAP)
                axis = figure.add_axes((x / width, y / height, size / width, tall / height))
                axis.set_axis_off()
                axis.set_anchor("S")  # a wide picture stands on its caption
                axis.imshow(panel.picture, interpolation="nearest")
                axis.set_title(panel.title, fontsize=8)
                for number, (text, colour) in enumerate(lines):
                    at = (y - 0.05 - number * _LINE) / height
                    figure.text(x / width, at, text, fontsize=7, va="top", color=colour or ink)
            y -= space
        if strip is not None:
            _, bars, numbers = _STRIP
            wide = min(_STRIP_WIDTH, width - 2 * _GAP)
            box = (_GAP / width, (bottom + numbers) / height, wide / width, bars / height)
            draw_strip(figure.add_axes(box), strip, wide)
        if key is not None:
            draw_key(figure, key, _GAP, 0.0, (width, height))
        for number, line in enumerate(head):
            weight = "bold" if number == 0 and len(head) > 1 else "normal"
            at = 1 - (0.08 + _HEAD[1] * number) / height
            figure.text(0.5, at, line, fontsize=10, ha="center", va="top", weight=weight)
        return write_figure(figure, path, few_colours)


def _aspect(row: Sequence[Panel], tallest: float) -> float:
    """Height of a row by the width of its panels: that of its tallest picture, within bounds."""
    shapes = [panel.picture.shape for panel in row]
    return min(tallest, max((shape[0] / shape[1] for shape in shapes), default=1.0))


def _alone(row: Sequence[Panel]) -> bool:
    """Whether the first panel alone has a caption, which may then run below the others."""
    return len(row) > 0 and not any(panel.caption for panel in row[1:])


def _wrapped(panel: Panel, size: float, dark: bool) -> list[tuple[str, str | None]]:
    """Lines of a panel's caption that fit below ``size`` inches, with their colours."""
    found: list[tuple[str, str | None]] = []
    right = [*panel.right, *[None] * len(panel.caption.splitlines())]
    for line, known in zip(panel.caption.splitlines(), right, strict=False):
        mark, *colours = ("", None, None) if known is None else _MARKS[known]
        parts = textwrap.wrap(mark + line, int(17 * size), subsequent_indent="    ")
        found += [(part, colours[dark]) for part in parts or [""]]
    return found


def _broken(title: str, width: float) -> list[str]:
    """Lines of a title that fit into ``width`` inches."""
    most = max(20, int(11 * width))
    return [part for line in title.splitlines() for part in textwrap.wrap(line, most)]
