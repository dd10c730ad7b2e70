"""How the figures of all analyses look: colours that colour-blind readers can tell apart, a marker
for each line, intervals as bands. matplotlib is imported only when something is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError
from prunus.viz.png import write_figure

#: Okabe and Ito's palette, in an order in which neighbours differ most.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
#: Label of an axis of layers, for what enters them.
AT_INPUT = "decoder layer (at its input)"

_MARKERS = "osv^DPX"
_DASHES = ("-", "--", "-.", ":", "-", "--", "-.")
_DPI = 110
_FONT = 8.5

Draw = Callable[[Any], None]
"""Draws into the matplotlib figure that it is given."""


@dataclass(frozen=True)
class Drawing:
    """A figure of ``width`` x ``height`` inches."""

    width: float
    height: float
    draw: Draw


def check_matplotlib() -> None:
    """Raise PrunusError if figures cannot be drawn: better now than after minutes of work."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PrunusError(
            "figures need matplotlib: install it with `pip install matplotlib`"
        ) from error


def save(drawing: Drawing, path: Path) -> Path:
    """Write ``drawing`` as a PNG to ``path``.

    Raises:
        PrunusError: matplotlib is not installed.
        PrunusFileError: the file cannot be written; the old one is unchanged.
    """
    check_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": _FONT,
        "axes.titlesize": _FONT + 0.5,
        "legend.fontsize": _FONT - 1,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(drawing.width, drawing.height), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        drawing.draw(figure)
        return write_figure(figure, path, few_colours=True)


def band(
    axis: Any,
    places: Sequence[float],
    rows: Sequence[Mapping[str, Any]],
    name: str,
    label: str,
    number: int,
    factor: float = 1.0,
) -> None:
    """One line with its interval: columns ``name``, ``name_low`` and ``name_high`` of ``rows``,
    times ``factor``, over ``places``; ``number`` chooses colour, marker and dashes."""
    style = number % len(COLOURS)
    value, low, high = (
        factor * np.array([row[f"{name}{end}"] for row in rows], dtype=np.float64)
        for end in ("", "_low", "_high")
    )
    finite = np.isfinite(low) & np.isfinite(high)
    axis.fill_between(places, low, high, where=finite, color=COLOURS[style], alpha=0.15, lw=0)
    axis.plot(
        places,
        value,
        color=COLOURS[style],
        marker=_MARKERS[style],
        linestyle=_DASHES[style],
        markersize=3.5,
        linewidth=1.4,
        label=label,
    )


def dots(
    axis: Any,
    names: Sequence[str],
    values: Sequence[tuple[float, float, float]],
    factor: float = 1.0,
    kinds: Sequence[int] | None = None,
) -> None:
    """One line for each name from top to bottom: a dot at its value, a bar for its interval
    (``value, low, high`` times ``factor``), in the colour of its kind (default: each its own)."""
    for place, triple in enumerate(values):
        value, low, high = (factor * part for part in triple)
        colour = COLOURS[(place if kinds is None else kinds[place]) % len(COLOURS)]
        axis.plot([low, high], [place, place], color=colour, linewidth=2.2, alpha=0.45)
        axis.plot([value], [place], color=colour, marker="o", markersize=5)
    axis.set_yticks(range(len(names)), list(names))
    axis.set_ylim(len(names) - 0.5, -0.5)


def level(axis: Any, value: float, label: str) -> None:
    """A thin line at one height, named in the legend."""
    axis.axhline(value, color="black", linewidth=0.9, linestyle=(0, (5, 3)), label=label)


def whole_ticks(axis: Any, places: Sequence[int], every: int = 16) -> None:
    """Ticks at ``places`` (layers): all of them, or evenly chosen ones if there are more than
    ``every``."""
    stride = -(-len(places) // every)
    axis.set_xticks(list(places)[::stride])


def panel(axis: Any, title: str, x: str, y: str) -> None:
    """Name a set of axes."""
    axis.set_title(title)
    axis.set_xlabel(x)
    axis.set_ylabel(y)


def map_panel(axis: Any, values: NDArray[Any], title: str, colours: str = "inferno") -> Any:
    """``values [rows, cols]`` as an image without axes; what matplotlib makes a colour bar of."""
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=_FONT - 1)
    return axis.imshow(values, cmap=colours, interpolation="nearest")
