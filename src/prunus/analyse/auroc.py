"""How well each score finds the objects of a drawn scene, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.analyse.context import Context
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.measure import flat
from prunus.analyse.objects import shown
from prunus.analyse.plots import AT_INPUT, Drawing, band, level, panel, whole_ticks
from prunus.analyse.result import Row
from prunus.analyse.signals import Notes
from prunus.errors import PrunusError
from prunus.results.stats import auroc


def masks_of(context: Context, notes: Sequence[Notes]) -> list[NDArray[np.bool_]] | None:
    """Tokens that show an object, for each prompt; None where objects are unknown."""
    found = []
    for note, query in zip(notes, context.data.queries, strict=True):
        scene = context.data.scenes[query.image]
        if scene is None:
            return None
        found.append(shown(scene, note.grid))
    return found


def auroc_rows(context: Context, notes: Sequence[Notes]) -> list[Row]:
    """AUROC of each score at each layer from 1 on: ``objects`` against all tokens that show an
    object, ``asked`` against those of the objects asked about (all other tokens are negatives,
    those of other objects among them; questions that ask about none are left out)."""
    masks = masks_of(context, notes)
    if masks is None:
        raise PrunusError("objects are unknown: AUROC is for the built-in evaluation set")
    asked = []
    for note, query in zip(notes, context.data.queries, strict=True):
        scene = context.data.scenes[query.image]
        assert scene is not None  # there are masks
        asked.append(shown(scene, note.grid, query.asked))
    rows = []
    for layer in range(1, context.depth):
        scores = [note.scores(layer) for note in notes]
        for name in scores[0]:
            values = [one[name].double().numpy() for one in scores]
            row: Row = {"score": name, "layer": layer}
            for column, positive in (("objects", masks), ("asked", asked)):
                found = [auroc(v, p) for v, p in zip(values, positive, strict=True)]
                row |= flat(column, mean_over_images(np.array(found), context.groups))
            rows.append(row)
    return rows


def auroc_facts(rows: Sequence[Row]) -> list[str]:
    """The scores at layer 1 in order, and the best of all layers."""
    facts = []
    for column, words in (("objects", "object tokens"), ("asked", "tokens of objects asked about")):
        at_one = sorted(
            (row for row in rows if row["layer"] == 1 and "adjacent" not in row["score"]),
            key=lambda row: -row[column],
        )
        listed = ", ".join(
            f"{row['score'].removesuffix(', global')} {row[column]:.3f} "
            f"[{row[f'{column}_low']:.3f}, {row[f'{column}_high']:.3f}]"
            for row in at_one
        )
        best = max(rows, key=lambda row: row[column])
        facts.append(
            f"AUROC for {words} at the input of layer 1: {listed}; best anywhere: "
            f"{best['score']} at layer {best['layer']}, {best[column]:.3f}."
        )
    return facts


#: Panels of the AUROC figure: what their scores have in common, and words in their names.
_FAMILIES = {
    "CLSE's intensity": ("intensity",),
    "rivals without the question": ("residual", "mean"),
    "scores that know the question": ("attention", "hybrid", "influence"),
}


def draw_auroc(rows: Sequence[Row]) -> Drawing:
    """Three families of scores, against all objects and against those asked about."""
    names = list(dict.fromkeys(row["score"] for row in rows))
    columns = {"objects": "all objects", "asked": "objects asked about"}

    def draw(figure: Any) -> None:
        axes = figure.subplots(2, 3, sharex=True, sharey=True)
        for line, (column, words) in zip(axes, columns.items(), strict=True):
            for axis, (family, kinds) in zip(line, _FAMILIES.items(), strict=True):
                members = [name for name in names if name.partition(",")[0] in kinds]
                for number, name in enumerate(members):
                    own = [row for row in rows if row["score"] == name]
                    band(axis, [row["layer"] for row in own], own, column, name, number)
                level(axis, 0.5, "chance")
                whole_ticks(axis, sorted({row["layer"] for row in rows}))
                axis.set_ylim(0, 1.02)
                panel(axis, f"{words}: {family}", AT_INPUT, "AUROC")
                axis.legend(loc="lower left", ncols=2)

    return Drawing(12.5, 7.0, draw)
