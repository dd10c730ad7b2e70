"""How well each score finds the objects of a drawn scene, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunus.analyse.context import Context
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.measure import flat
from prunus.analyse.objects import masks_of
from prunus.analyse.plots import AT_INPUT, Drawing, band, level, panel, whole_ticks
from prunus.analyse.result import Row
from prunus.analyse.signals import Notes
from prunus.errors import PrunusError
from prunus.results.stats import auroc


def auroc_rows(context: Context, notes: Sequence[Notes]) -> list[Row]:
    """AUROC of each score at each layer from 1 on: ``objects`` against all tokens that show an
    object, ``asked`` against those of the objects asked about (all other tokens are negatives,
    those of other objects among them; questions that ask about none are left out)."""
    masks, asked = masks_of(context, notes), masks_of(context, notes, asked=True)
    if masks is None or asked is None:
        raise PrunusError("objects are unknown: AUROC is for the built-in evaluation sets")
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


def pairs_fact(rows: Sequence[Row]) -> str:
    """At which pairs of layers CLSE's intensity finds objects: its interval lies above chance."""
    told = []
    for name, words in (("global", "layer 0"), ("adjacent", "the layer before")):
        own = [row for row in rows if row["score"] == f"intensity, {name}"]
        above = [int(row["layer"]) for row in own if row["objects_low"] > 0.5]
        below = [int(row["layer"]) for row in own if row["objects_high"] < 0.5]
        best = max(own, key=lambda row: row["objects"])
        told.append(
            f"against {words} better than chance at {_listed(above)} and worse at {_listed(below)} "
            f"(best at layer {best['layer']}, {best['objects']:.3f} [{best['objects_low']:.3f}, "
            f"{best['objects_high']:.3f}])"
        )
    return f"Intensity finds objects {'; '.join(told)}; by AUROC, 95 % intervals over images."


def _listed(layers: Sequence[int]) -> str:
    """``no layer``, ``layer 4``, ``layers 1-3, 7``."""
    if not layers:
        return "no layer"
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(parts)}"


#: Panels of the AUROC figure: what their scores have in common, and words in their names.
_FAMILIES = {
    "CLSE's intensity": ("intensity",),
    "what intensity is made of": ("content", "growth", "turn"),
    "rivals without the question": ("residual", "mean"),
    "scores that know the question": ("attention", "hybrid", "influence"),
}


def draw_auroc(rows: Sequence[Row]) -> Drawing:
    """Families of scores, against all objects and against those asked about."""
    names = list(dict.fromkeys(row["score"] for row in rows))
    columns = {"objects": "all objects", "asked": "objects asked about"}

    def draw(figure: Any) -> None:
        axes = figure.subplots(2, len(_FAMILIES), sharex=True, sharey=True)
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

    return Drawing(15.5, 7.0, draw)
