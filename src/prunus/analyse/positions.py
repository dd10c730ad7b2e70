"""Positional bias: where in the image each score keeps tokens, whatever is shown there."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.analyse.context import Context
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.measure import flat
from prunus.analyse.objects import masks_of
from prunus.analyse.plots import Drawing, band, level, map_panel, panel
from prunus.analyse.result import Picture, Row, Table
from prunus.analyse.signals import Notes
from prunus.grid import Grid
from prunus.signals.topk import stable_topk

KEEP = 1 / 9
BINS = 24
_LAYER = 1
_SCORES = {
    "intensity, global": "CLSE",
    "attention": "attention",
    "hybrid": "CLSE hybrid",
    "influence": "influence",
}


def kept(note: Notes, score: str, keep: float = KEEP) -> NDArray[np.bool_]:
    """Bool ``[N]``: the ``keep`` best tokens by ``score`` at the input of layer 1."""
    count = max(1, int(keep * note.grid.size + 1e-6))
    best = stable_topk(note.scores(_LAYER)[score], count)
    mask = np.zeros(note.grid.size, dtype=np.bool_)
    mask[best.numpy()] = True
    return mask


def binned(mask: NDArray[np.bool_], among: NDArray[np.bool_], bins: int) -> NDArray[np.float64]:
    """Share of the tokens ``among`` that ``mask`` keeps, ``[bins]``, in equal parts of the
    sequence from its first to its last token; NaN for a part without such tokens."""
    part = np.arange(mask.size) * bins // mask.size
    total = np.bincount(part[among], minlength=bins).astype(np.float64)
    chosen = np.bincount(part[among & mask], minlength=bins)
    with np.errstate(invalid="ignore"):
        share: NDArray[np.float64] = chosen / total
    return share


def kept_positions(context: Context, notes: Sequence[Notes]) -> tuple[Table, Picture]:
    """Where each score keeps tokens: by place in the sequence, over all tokens and over those that
    show no object, and, where all images share one grid, on the grid."""
    everything = [np.ones(note.grid.size, dtype=np.bool_) for note in notes]
    among = {"all": everything}
    objects = masks_of(context, notes)
    if objects is not None:
        among["background"] = [~mask for mask in objects]
    chosen = {score: [kept(note, score) for note in notes] for score in _SCORES}
    bins = min(BINS, min(note.grid.size for note in notes))
    rows: list[Row] = []
    for score, masks in chosen.items():
        for group, tokens in among.items():
            shares = np.stack(
                [binned(mask, own, bins) for mask, own in zip(masks, tokens, strict=True)]
            )
            for number, column in enumerate(shares.T):
                row: Row = {"score": score, "tokens": group, "part": number, "parts": bins}
                rows.append(row | flat("kept", mean_over_images(column, context.groups)))
    about = (
        f"Share of tokens kept at layer {_LAYER}, {KEEP:.1%} in all, in {bins} equal parts of the "
        f"visual sequence (top of an image to its bottom); {len(notes)} prompts"
    )
    one_grid = len({note.grid for note in notes}) == 1
    frequency: dict[str, NDArray[Any]] = {}
    grid = notes[0].grid
    if one_grid and isinstance(grid, Grid) and grid.frames == 1:
        if "background" in among:
            there = ~np.stack(among["background"])
            frequency["an object is here"] = there.mean(axis=0).reshape(grid.rows, grid.cols)
        for score, masks in chosen.items():
            mean = np.stack(masks).mean(axis=0)
            frequency[f"kept: {_SCORES[score]}"] = mean.reshape(grid.rows, grid.cols)
    return (
        Table("spectral-positions", about, rows),
        Picture("spectral-positions", about, _draw(rows, frequency)),
    )


def position_facts(rows: Sequence[Row]) -> list[str]:
    """Where each score keeps most and fewest of the tokens that show nothing in particular."""
    group = rows[-1]["tokens"]
    told = []
    for score, label in _SCORES.items():
        own = [row for row in rows if (row["score"], row["tokens"]) == (score, group)]
        own = sorted((row for row in own if not isnan(row["kept"])), key=lambda r: float(r["kept"]))
        least, most = own[0], own[-1]
        told.append(
            f"{label} most in part {most['part']} ({most['kept']:.1%}) and least in part "
            f"{least['part']} ({least['kept']:.1%})"
        )
    which = "tokens that show no object" if group == "background" else "visual tokens"
    return [
        f"Of the {which}, in {rows[0]['parts']} parts of the sequence counted from 0, and at "
        f"{KEEP:.1%} kept in all: {'; '.join(told)}."
    ]


def _draw(rows: Sequence[Row], frequency: dict[str, NDArray[Any]]) -> Drawing:
    groups = list(dict.fromkeys(row["tokens"] for row in rows))
    words = {"all": "all visual tokens", "background": "tokens that show no object"}

    def draw(figure: Any) -> None:
        upper, lower = figure, None
        if frequency:
            upper, lower = figure.subfigures(2, 1, height_ratios=(3, 2))
        axes = upper.subplots(1, len(groups), squeeze=False)[0]
        for axis, group in zip(axes, groups, strict=True):
            for number, (score, label) in enumerate(_SCORES.items()):
                own = [r for r in rows if r["score"] == score and r["tokens"] == group]
                band(axis, [row["part"] for row in own], own, "kept", label, number, 100)
            level(axis, 100 * KEEP, "no preference" if group == "all" else "budget")
            panel(
                axis,
                f"{words[group]}",
                "place in the sequence (0: top rows of the image)",
                "kept, %",
            )
            axis.set_ylim(bottom=0)
            axis.legend(ncols=2)
        if lower is None:
            return
        axes = lower.subplots(1, len(frequency), squeeze=False)[0]
        highest = max(float(values.max()) for values in frequency.values())
        for axis, (title, values) in zip(axes, frequency.items(), strict=True):
            drawn = map_panel(axis, 100 * values, title, "cividis")
            drawn.set_clim(0, 100 * highest)
        lower.colorbar(drawn, ax=list(axes), label="% of prompts", shrink=0.8)

    return Drawing(10.0, 6.0 if frequency else 3.6, draw)
