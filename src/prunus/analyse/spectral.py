"""Spectral evolution: what CLSE looks at, layer by layer, and how well each score finds objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prunus.analyse import maps, suits
from prunus.analyse.auroc import auroc_facts, auroc_rows, draw_auroc, pairs_fact
from prunus.analyse.context import Context, Step
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.measure import flat
from prunus.analyse.objects import masks_of
from prunus.analyse.plots import AT_INPUT, Drawing, band, panel, whole_ticks
from prunus.analyse.positions import kept_positions, position_facts
from prunus.analyse.result import Picture, Result, Row, Table
from prunus.analyse.signals import CUTOFF, Notes, collect
from prunus.analyse.suits_shown import suits_facts, suits_picture, suits_table, verdict

TITLE = "Spectral evolution"


def work(context: Context) -> int:
    """Prompts that :func:`run` will put through the model."""
    return len(context.data.queries) + suits.work(context)


def run(context: Context, step: Step) -> Result:
    """High-frequency share, intensity maps, kept positions, AUROC of each score, and whether CLSE
    suits the model."""
    notes = collect(context, step)
    count = f"{len(notes)} prompts"
    shares = share_rows(context, notes)
    positions, kept = kept_positions(context, notes)
    tables = [
        Table("spectral", f"{_SHARE}; r = {CUTOFF:g}, means over {count}", shares),
        positions,
    ]
    pictures = [Picture("spectral", f"{_SHARE}, by layer; {count}", _draw_shares(shares)), kept]
    pictures += maps.evolution_maps(context, notes)
    facts = [_share_fact(shares), *position_facts(positions.rows)]
    missing = []
    if masks_of(context, notes) is not None:
        found = auroc_rows(context, notes)
        about = (
            "AUROC of every score against the tokens that clearly show an object, and against "
            f"those of the objects asked about; means over {count}, intervals over images"
        )
        tables.append(Table("spectral-auroc", about, found))
        pictures.append(Picture("spectral-auroc", about, draw_auroc(found)))
        facts += [*auroc_facts(found), pairs_fact(found)]
    else:
        missing.append("AUROC, because it is unknown which tokens show an object")
    worth = suits.suits(context, notes, step)
    tables.append(suits_table(worth))
    pictures.append(suits_picture(worth))
    facts += suits_facts(worth)
    return Result("spectral", TITLE, facts, tables, pictures, missing, verdict(worth))


_SHARE = (
    "High-frequency share: mean over tokens of the spectral map S of the states entering a layer, "
    "divided by the mean over tokens and channels of their absolute value (above 1 where a token "
    "differs from its surroundings by more than its own size)"
)


def high_share(note: Notes, layer: int, where: NDArray[np.bool_] | None = None) -> float:
    """The high-frequency share of what enters ``layer``, over the tokens ``where`` (default: all);
    NaN where there are none."""
    tokens = torch.ones(note.grid.size, dtype=torch.bool)
    if where is not None:
        tokens = torch.from_numpy(where)
    if not bool(tokens.any()):
        return float("nan")
    high = note.spectrum[layer][tokens].double().mean()
    return float(high / note.amplitude[layer][tokens].double().mean())


def share_rows(context: Context, notes: Sequence[Notes]) -> list[Row]:
    """For each layer the share over all tokens and, where objects are known, over the tokens that
    show one and over all others."""
    masks = masks_of(context, notes)
    rows = []
    for layer in range(context.depth):
        row: Row = {"layer": layer}
        parts: dict[str, list[NDArray[np.bool_] | None]] = {"share": [None] * len(notes)}
        if masks is not None:
            parts["share_objects"] = list(masks)
            parts["share_background"] = [~mask for mask in masks]
        for name, where in parts.items():
            values = [high_share(n, layer, w) for n, w in zip(notes, where, strict=True)]
            row |= flat(name, mean_over_images(np.array(values), context.groups))
        rows.append(row)
    return rows


def _share_fact(rows: Sequence[Row]) -> str:
    first, last = rows[0], rows[-1]
    least = min(rows, key=lambda row: float(row["share"]))
    return (
        f"The high-frequency share is {first['share']:.3f} where tokens enter layer 0, "
        f"{rows[1]['share']:.3f} at layer 1, {last['share']:.3f} at layer {last['layer']}; "
        f"it is least at layer {least['layer']} ({least['share']:.3f})."
    )


def _draw_shares(rows: Sequence[Row]) -> Drawing:
    names = {
        "share": "all visual tokens",
        "share_objects": "tokens on objects",
        "share_background": "other tokens",
    }

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        layers = [row["layer"] for row in rows]
        for number, (name, label) in enumerate(names.items()):
            if name in rows[0]:
                band(axis, layers, rows, name, label, number)
        whole_ticks(axis, layers)
        axis.set_ylim(bottom=0)
        panel(axis, "High-frequency share of visual tokens", AT_INPUT, "share")
        axis.legend()

    return Drawing(6.0, 3.6, draw)
