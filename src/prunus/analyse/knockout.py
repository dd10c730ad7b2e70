"""Attention knock-out by ranges of layers: which layers need to see the image at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunus.analyse.context import Context, Step
from prunus.analyse.measure import DENSE, Setting, measure, row
from prunus.analyse.plots import Drawing, band, level, panel, whole_ticks
from prunus.analyse.result import Picture, Result, Row, Table
from prunus.errors import PrunusError
from prunus.pruners.knockout import Knockout

TITLE = "Attention knock-out by range of layers"
TOLERANCE = 0.02
"""Loss of accuracy (or agreement) up to which a range counts as not needed."""

#: Layers that are visited at most: a setting per layer and curve is what takes time.
MOST = 16

SHALLOW, DEEP = "shallow to deep", "deep to shallow"

#: The curves of each direction.
CURVES = {
    SHALLOW: (
        "text to image, zeroed",
        "text to image, sink in layer 0",
        "text to image, renormalised",
        "image to image, zeroed",
    ),
    DEEP: ("text to image, zeroed", "text to image, merged"),
}


@dataclass(frozen=True)
class Cell:
    """One range of layers, ``first`` to ``last``, of one curve."""

    direction: str
    curve: str
    first: int
    last: int

    @property
    def setting(self) -> Setting:
        """The edits of attention that make it up."""
        layers = tuple(range(self.first, self.last + 1))
        if self.curve == "text to image, zeroed":
            return (Knockout(layers),)
        if self.curve == "text to image, renormalised":
            return (Knockout(layers, renormalise=True),)
        if self.curve == "text to image, merged":
            return (Knockout(layers, collapse=True),)
        if self.curve == "image to image, zeroed":
            return (Knockout(layers, mask="visual"),)
        assert self.curve == "text to image, sink in layer 0"
        sink = Knockout((0,), collapse=True)
        return (sink, Knockout(layers[1:])) if self.last else (sink,)


def cells(depth: int) -> list[Cell]:
    """Every range of every curve. Ranges grow by one layer, or by several in deep models."""
    ends = visited(0, depth)
    found = [Cell(SHALLOW, curve, 0, end) for curve in CURVES[SHALLOW] for end in ends]
    found += [Cell(DEEP, curve, end, depth - 1) for curve in CURVES[DEEP] for end in reversed(ends)]
    return found


def work(context: Context) -> int:
    """Prompts that :func:`run` will put through the model."""
    return (1 + len(cells(context.depth))) * len(context.data.queries)


def run(context: Context, step: Step) -> Result:
    """Both directions, each with and without a sink for the weight that is taken away."""
    dense = row(context, measure(context, DENSE, step))
    rows: list[Row] = [
        {
            "direction": cell.direction,
            "knocked_out": cell.curve,
            "first": cell.first,
            "last": cell.last,
            **row(context, measure(context, cell.setting, step)),
        }
        for cell in cells(context.depth)
    ]
    name, count = context.measure_name, len(context.data.queries)
    about = (
        f"{name.capitalize()} and divergence of the first answer token where attention to visual "
        f"tokens is knocked out in a range of layers while the prompt is read; {count} questions "
        "per range, 95 % intervals"
    )
    lines: list[Row] = [{"direction": "none", "knocked_out": "nothing (dense)", **dense}, *rows]
    chance = _chance(context)
    return Result(
        "knockout",
        TITLE,
        _facts(rows, dense, name),
        [Table("knockout", about, lines)],
        [Picture("knockout", about, _draw(rows, dense, name, chance))],
    )


def _chance(context: Context) -> float | None:
    """Mean chance level of the questions, where it is known."""
    data = context.data
    if not context.known or any(query.type not in data.chance for query in data.queries):
        return None
    return sum(data.chance[query.type] for query in data.queries) / len(data.queries)


def plateau(rows: Sequence[Row], dense: float, name: str) -> Row | None:
    """The largest range such that it and all smaller ones of its curve (``rows``, growing) lose at
    most :data:`TOLERANCE`; None if even the smallest loses more."""
    last = None
    for line in rows:
        if dense - line[name] > TOLERANCE + 1e-9:
            break
        last = line
    return last


def _facts(rows: Sequence[Row], dense: Row, name: str) -> list[str]:
    value, low, high = (100 * dense[f"{name}{end}"] for end in ("", "_low", "_high"))
    facts = [f"Dense {name}: {value:.1f} % [{low:.1f}, {high:.1f}]."]
    for direction, curves in CURVES.items():
        for curve in curves:
            own = [r for r in rows if (r["direction"], r["knocked_out"]) == (direction, curve)]
            first, whole = own[0], own[-1]
            reached = plateau(own, dense[name], name)
            points = f"{100 * TOLERANCE:.0f} points"
            free = f"more than {points} are lost at once"
            if reached is not None:
                free = f"at most {points} are lost up to layers {_range(reached)}"
            facts.append(
                f"{direction}, {curve}: {free}; layer {_range(first)} alone: "
                f"{100 * first[name]:.1f} %, KL {first['divergence']:.3g}; all layers: "
                f"{100 * whole[name]:.1f} %, KL {whole['divergence']:.3g}."
            )
    return facts


def _range(line: Row) -> str:
    first, last = line["first"], line["last"]
    return f"{first}" if first == last else f"{first} to {last}"


def _draw(rows: Sequence[Row], dense: Row, name: str, chance: float | None) -> Drawing:
    ends = {SHALLOW: "last", DEEP: "first"}
    words = {
        SHALLOW: "layers 0 to l knocked out",
        DEEP: "layers l to the last knocked out",
    }

    def draw(figure: Any) -> None:
        axes = figure.subplots(2, 2, sharey="row")
        order = list(dict.fromkeys(curve for curves in CURVES.values() for curve in curves))
        for column, (direction, curves) in enumerate(CURVES.items()):
            upper, lower = axes[0][column], axes[1][column]
            for curve in curves:
                own = [r for r in rows if (r["direction"], r["knocked_out"]) == (direction, curve)]
                places = [line[ends[direction]] for line in own]
                number = order.index(curve)
                band(upper, places, own, name, curve, number, 100)
                band(lower, places, own, "divergence", curve, number)
            level(upper, 100 * dense[name], "dense")
            if chance is not None:
                upper.axhline(100 * chance, color="grey", linewidth=0.9, label="chance")
            lower.set_yscale("log")
            for axis in (upper, lower):
                whole_ticks(axis, sorted(places))
            panel(upper, f"{direction}: {words[direction]}", "layer l", f"{name}, %")
            panel(lower, f"{direction}: {words[direction]}", "layer l", "KL divergence, nats")
            upper.set_ylim(bottom=0)
        named: dict[str, Any] = {}
        for axis in axes[0]:
            lines, labels = axis.get_legend_handles_labels()
            named |= dict(zip(labels, lines, strict=True))
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4)

    return Drawing(10.5, 7.2, draw)


def visited(first: int, depth: int, most: int = MOST) -> list[int]:
    """Ascending layers from ``first`` to ``depth - 1``, both ends among them, at most ``most``.

    Raises:
        PrunusError: there is no such layer, or ``most`` is below 2.
    """
    if not 0 <= first < depth or most < 2:
        raise PrunusError(f"no layers to visit from {first} on in {depth}, at most {most}")
    count = depth - first
    if count <= most:
        return list(range(first, depth))
    return [first + place * (count - 1) // (most - 1) for place in range(most)]
