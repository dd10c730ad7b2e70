"""The figure of the sweeps: six panels of accuracy, or of divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunus.analyse.ablations import BUDGETS, RATIOS
from prunus.analyse.plots import COLOURS, Drawing, band, level, panel
from prunus.analyse.result import Row


@dataclass(frozen=True)
class Quantity:
    """What a figure shows: a column of the table, its name on the axis, the ``factor`` from one to
    the other, and the value of the dense model (None: a divergence, on a logarithmic axis)."""

    column: str
    label: str
    factor: float
    dense: float | None


def text_of(place: str | float) -> str:
    """A setting's name, or its number without trailing zeros."""
    return place if isinstance(place, str) else f"{place:g}"


def draw_sweeps(rows: Sequence[Row], what: Quantity) -> Drawing:
    """Layer and ratio, the same by cost, scores, cut-off, temperature and reference."""
    name, factor = what.column, what.factor

    def pick(sweep: str, keep: float) -> list[Row]:
        return [line for line in rows if line["sweep"] == sweep and line["keep"] == keep]

    def finish(axis: Any, title: str, x: str) -> None:
        if what.dense is None:
            axis.set_yscale("log")
        else:
            level(axis, factor * what.dense, "dense")
        panel(axis, title, x, what.label)
        axis.legend()

    def by_layer(axis: Any) -> None:
        for number, keep in enumerate(RATIOS):
            own = pick("layer", keep)
            band(axis, [line["setting"] for line in own], own, name, f"{keep:.1%}", number, factor)
        axis.set_xticks([line["setting"] for line in pick("layer", RATIOS[0])])
        finish(axis, "CLSE hybrid: where and how much", "decoder layer at whose input tokens go")

    def by_budget(axis: Any) -> None:
        places = [line["setting"] for line in pick("layer", RATIOS[0])]
        for number, place in enumerate(places):
            own = [line for line in rows if line["sweep"] == "layer" and line["setting"] == place]
            own = [line for line in own if "flops_ratio" in line]  # where FLOPs were counted
            if own:
                budgets = [100 * line["flops_ratio"] for line in own]
                band(axis, budgets, own, name, f"at layer {place}", number, factor)
        finish(axis, "the same against what it costs", "prefill FLOPs of the language model, %")

    def by_place(axis: Any, sweep: str, title: str, x: str) -> None:
        for number, keep in enumerate(BUDGETS):
            own = pick(sweep, keep)
            band(axis, range(len(own)), own, name, f"{keep:.1%} kept", number, factor)
        axis.set_xticks(range(len(own)), [text_of(line["setting"]) for line in own])
        finish(axis, title, x)

    def by_reference(axis: Any) -> None:
        number = 0
        for keep in BUDGETS:
            for kind in ("global", "adjacent"):
                own = pick(f"reference, {kind}", keep)
                places = [line["setting"] for line in own]
                band(axis, places, own, name, f"{keep:.1%}, {kind}", number, factor)
                number += 1
        axis.set_xticks(places)
        finish(axis, "CLSE: layer 0 or the layer before as reference", "decoder layer of the cut")

    def by_score(axis: Any) -> None:
        for number, keep in enumerate(BUDGETS):
            own = pick("score", keep)
            for place, line in enumerate(own):
                value, low, high = (factor * line[f"{name}{end}"] for end in ("", "_low", "_high"))
                at = place + 0.18 * (2 * number - 1)
                axis.plot([at, at], [low, high], color=COLOURS[number], linewidth=1.4)
                axis.plot(
                    at,
                    value,
                    "os"[number],
                    color=COLOURS[number],
                    markersize=4.5,
                    label=f"{keep:.1%} kept" if place == 0 else None,
                )
        axis.set_xticks(range(len(own)), [line["setting"] for line in own], rotation=25)
        finish(axis, "scores at layer 1", "")

    def draw(figure: Any) -> None:
        axes = figure.subplots(2, 3).flat
        by_layer(axes[0])
        by_budget(axes[1])
        by_score(axes[2])
        by_place(axes[3], "cutoff", "CLSE: cut-off r of the high-pass", "r (0: no filter)")
        by_place(axes[4], "temperature", "CLSE hybrid: temperature of the gate", "temperature")
        by_reference(axes[5])

    return Drawing(12.5, 7.4, draw)
