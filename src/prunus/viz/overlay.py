"""Pictures of what a method looked at and what it kept: heat maps and dimmed patches.

Everything here takes plain pictures (``[height, width, 3]``, values in [0, 1], *as the model saw
them*) and returns pictures; only :func:`draw_panels` needs matplotlib.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.grid import Grid
from prunus.trace import TraceEntry
from prunus.viz.regions import merged_regions, spread_kept
from prunus.viz.seen import Picture

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Panel:
    """One picture of a figure, with a ``title`` above and optional ``caption`` lines below."""

    picture: Picture
    title: str
    caption: str = ""


def kept_cells(kept: Any, grid: Grid) -> NDArray[np.bool_]:
    """``[frames, rows, cols]``: True where a token of ``kept`` (indices) lies.

    Raises:
        ValueError: an index outside the grid.
    """
    indices = np.asarray(kept, dtype=np.int64).reshape(-1)
    if indices.size and not (indices.min() >= 0 and indices.max() < grid.size):
        raise ValueError(f"kept indices reach {indices.max()}, the grid has {grid.size} tokens")
    cells = np.zeros(grid.size, dtype=np.bool_)
    cells[indices] = True
    return cells.reshape(grid.frames, grid.rows, grid.cols)


def score_cells(scores: Any, grid: Grid) -> NDArray[np.float32]:
    """``[frames, rows, cols]`` of scores as *ranks* in [0, 1]; NaN where a token was gone before.

    Ranks, not values: scores of different methods have different units, a few tokens often dwarf
    all others, and the ranks are what the selection goes by. Equal scores get equal ranks.

    Raises:
        ValueError: not one score per token of the grid.
    """
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if values.size != grid.size:
        raise ValueError(f"{values.size} scores for a grid of {grid.size} tokens")
    ranks = np.full(values.size, np.nan)
    there = ~np.isnan(values)
    _, place, counts = np.unique(values[there], return_inverse=True, return_counts=True)
    if counts.size:
        middle = np.cumsum(counts) - (counts + 1) / 2
        ranks[there] = middle[place] / max(1, there.sum() - 1)
    return ranks.astype(np.float32).reshape(grid.frames, grid.rows, grid.cols)


def dim_dropped(picture: Picture, kept: Any, grid: Grid, frame: int = 0) -> Picture:
    """``picture`` with the patches of dropped tokens grey and faint, those of kept ones as is."""
    mask = _spread(kept_cells(kept, grid)[frame], grid, picture)
    grey = (picture @ _LUMA)[..., None] * 0.25 + 0.60  # light, but never white
    faint = np.broadcast_to(grey, picture.shape)
    return np.where(mask[..., None], picture, np.clip(faint, 0.0, 1.0)).astype(np.float32)


def heat_map(picture: Picture, scores: Any, grid: Grid, frame: int = 0) -> Picture:
    """Ranks of ``scores`` as colours (dark: least, yellow: most) over a grey ``picture``."""
    cells = _spread(score_cells(scores, grid)[frame], grid, picture, outside=np.nan)
    gone = np.isnan(cells)
    colour = _inferno(np.where(gone, 0.0, cells))
    grey = np.broadcast_to((picture @ _LUMA)[..., None], picture.shape)
    blended = 0.6 * colour + 0.4 * grey
    return np.where(gone[..., None], 0.5 * grey + 0.5, blended).astype(np.float32)


def trace_panels(
    pictures: Sequence[Sequence[Picture]],
    trace: Sequence[TraceEntry],
    sample: int = 0,
) -> list[list[Panel]]:
    """One row per image, or temporal slice of a video: the picture, then importance and kept
    patches of each stage, or the regions that tokens were merged to. Behind a merge, a kept token
    shows all it stands for.

    Args:
        pictures: for each image of the sample, its frames (of a video, one per slice of visual
            tokens) as the model saw them.
        trace: the entries of one prompt, in the order in which they happened.
        sample: which sample of the batch.

    Raises:
        ValueError: the number of images or frames does not fit the trace.
    """
    rows: list[list[Panel]] = []
    for image, frames in enumerate(pictures):
        for frame, picture in enumerate(frames):
            kind = "video" if len(frames) > 1 else "image"
            name = f"{kind} {image + 1}" if len(pictures) > 1 else "as the model saw it"
            if len(frames) > 1:
                name += f", slice {frame + 1}"
            row = [Panel(picture, name)]
            merged = None
            for entry in trace:
                row += _entry_panels(entry, sample, image, frame, picture, merged)
                merged = entry.merged_into or merged
            rows.append(row)
    return rows


def _entry_panels(
    entry: TraceEntry, sample: int, image: int, frame: int, picture: Picture, merged: Any
) -> list[Panel]:
    images = entry.kept[sample]
    if image >= len(images):
        raise ValueError(f"the trace knows {len(images)} images, picture {image + 1} is one more")
    grid, kept = entry.grid[sample][image], images[image]
    if frame >= grid.frames:
        raise ValueError(f"the trace knows {grid.frames} slices, picture {frame + 1} is one more")
    where = entry.place if entry.layer is None else f"layer {entry.layer}"
    panels = []
    if entry.scores is not None:
        scores = entry.scores[sample][image]
        if merged is not None:  # a survivor's score shows on all that it stands for
            scores = scores[merged[sample][image]]
        drawn = heat_map(picture, scores, grid, frame)
        panels.append(Panel(drawn, f"importance, {where}"))
    drawn, done = draw_entry(entry, sample, image, frame, picture, merged)
    count = f"{len(kept)} of {grid.size}"
    if grid.frames > 1:  # a video: how many of them are in this slice
        count = f"{int(kept_cells(kept, grid)[frame].sum())} here, {count}"
    panels.append(Panel(drawn, f"{entry.method}: {count} {done}, {where}"))
    return panels


def draw_entry(
    entry: TraceEntry, sample: int, image: int, frame: int, picture: Picture, merged: Any = None
) -> tuple[Picture, str]:
    """What ``entry`` left of one frame, drawn, and the word for it ("kept" or "left, merged").

    ``merged`` is the ``merged_into`` of an earlier entry, or None.
    """
    grid, kept = entry.grid[sample][image], entry.kept[sample][image]
    if entry.merged_into is not None:
        own = entry.merged_into[sample][image]
        return merged_regions(picture, own, grid, frame), "left, merged"
    shown = kept if merged is None else spread_kept(kept, merged[sample][image], grid)
    return dim_dropped(picture, shown, grid, frame), "kept"


def draw_panels(
    rows: Sequence[Sequence[Panel]], path: str | Path, *, title: str = "", size: float = 2.6
) -> Path:
    """Write all panels as one PNG, ``rows`` below each other; missing folders are made.

    Args:
        rows: panels; rows may differ in length.
        path: the file to write.
        title: a line above everything.
        size: side of a panel in inches (at 150 dots per inch).

    Raises:
        ValueError: nothing to draw, a path that is no ``.png``, or matplotlib is not installed.
    """
    if not rows or not any(rows):
        raise ValueError("there are no panels to draw")
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"cannot write {str(path)!r}: the picture is a PNG, give a name in .png")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            "pictures need matplotlib: install it with `pip install 'prunus[viz]'`"
        ) from error

    columns = max(len(row) for row in rows)
    gap, top = 0.12, 0.3  # inches: between panels, and above one for its title
    captions = [[_wrap(panel.caption, size) for panel in row] for row in rows]
    below = [
        max((_LINE * (text.count("\n") + 1.5) for text in row if text), default=gap)
        for row in captions
    ]
    width = columns * (size + gap) + gap
    height = len(rows) * (size + top) + sum(below) + (0.35 if title else 0.0)
    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    y = height - (0.35 if title else 0.0)
    for row, texts, space in zip(rows, captions, below, strict=True):
        y -= top + size
        for index, (panel, text) in enumerate(zip(row, texts, strict=True)):
            x = gap + index * (size + gap)
            axis = figure.add_axes((x / width, y / height, size / width, size / height))
            axis.set_axis_off()
            axis.imshow(panel.picture, interpolation="nearest")
            axis.set_title(panel.title, fontsize=8)
            figure.text(x / width, (y - 0.05) / height, text, fontsize=7, va="top")
        y -= space
    if title:
        figure.text(0.5, 1 - 0.08 / height, title, fontsize=10, ha="center", va="top")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


_LINE = 0.14  # inches: height of a caption's line at 7 points


def _wrap(caption: str, size: float) -> str:
    """``caption`` broken into lines that fit below a panel of ``size`` inches."""
    return "\n".join(
        textwrap.fill(line, int(17 * size), subsequent_indent="    ")
        for line in caption.splitlines()
    )


def _spread(
    cells: NDArray[Any], grid: Grid, picture: Picture, outside: float = 0.0
) -> NDArray[Any]:
    """Cell values ``[rows, cols]`` on the pixels of ``picture``.

    A tower whose image side is no multiple of the patch ignores the last pixels: they belong to
    no token and get ``outside``.
    """
    height, width = grid.cell
    spread = np.repeat(np.repeat(cells, height, axis=0), width, axis=1)
    rows, cols = picture.shape[:2]
    if spread.shape[0] > rows or spread.shape[1] > cols:
        raise ValueError(
            f"a grid of {spread.shape[0]}x{spread.shape[1]} pixels does not fit a picture of "
            f"{rows}x{cols}: give the image as the model saw it"
        )
    full = np.full((rows, cols), outside, dtype=spread.dtype)
    full[: spread.shape[0], : spread.shape[1]] = spread
    return full


#: Eight points of matplotlib's "inferno" map, interpolated: drawing needs no matplotlib for it.
_INFERNO = np.array(
    [
        [0.001, 0.000, 0.014],
        [0.155, 0.044, 0.325],
        [0.397, 0.083, 0.433],
        [0.624, 0.165, 0.388],
        [0.830, 0.283, 0.259],
        [0.961, 0.490, 0.084],
        [0.980, 0.753, 0.153],
        [0.988, 1.000, 0.645],
    ],
    dtype=np.float32,
)


def _inferno(values: NDArray[Any]) -> Picture:
    points = np.linspace(0.0, 1.0, len(_INFERNO))
    channels = [np.interp(values, points, _INFERNO[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)
