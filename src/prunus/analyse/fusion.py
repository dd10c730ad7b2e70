"""Where vision reaches the answer: influence of single tokens by layer, and what is lost where
vision is skipped in a layer or leaves for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunus.analyse.context import Context, Step
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.knockout import TOLERANCE, visited
from prunus.analyse.leave import Leave
from prunus.analyse.measure import DENSE, Setting, flat, measure, row
from prunus.analyse.overlap import TOP, overlap_rows, questions
from prunus.analyse.plots import Drawing, band, level, panel, whole_ticks
from prunus.analyse.result import Picture, Result, Row, Table
from prunus.analyse.signals import Notes, collect
from prunus.pruners.knockout import Knockout

TITLE = "Where fusion happens, and where vision can leave"
CRITICAL = 0.995
"""Cosine below which leaving one token out counts as a change (VisiPruner's threshold)."""

LEAVE, SKIP = "leaves from layer l on", "skipped in layer l alone"


def work(context: Context) -> int:
    """Prompts that :func:`run` will put through the model."""
    settings = len(_settings(context.depth))
    return (2 + settings) * len(context.data.queries) + len(questions(context).queries)


def _settings(depth: int) -> list[tuple[str, int, Setting]]:
    layers = visited(0, depth)
    return [
        *((LEAVE, layer, (Leave(layer),)) for layer in layers),
        *((SKIP, layer, (Knockout((layer,)),)) for layer in layers),
    ]


def run(context: Context, step: Step) -> Result:
    """Influence, overlap between questions, and what removing vision costs, by layer."""
    dense = row(context, measure(context, DENSE, step))
    notes = collect(context, step)
    influence = influence_rows(context, notes)
    removal: list[Row] = [
        {"vision": what, "layer": layer, **row(context, measure(context, setting, step))}
        for what, layer, setting in _settings(context.depth)
    ]
    overlap, asked, images = overlap_rows(context, step)
    name, count = context.measure_name, len(notes)
    about = (
        "Influence of single visual tokens on the last prompt token's attention output (before the "
        f"output projection), and its attention on them; means over {count} prompts"
    )
    gone = (
        f"{name.capitalize()} and divergence of the first answer token where all visual tokens "
        f"leave at the input of a layer, or are not seen by text in that layer alone; {count} "
        "questions per row"
    )
    tables = [
        Table("fusion", about, influence),
        Table("fusion-removal", gone, [{"vision": "everywhere (dense)", **dense}, *removal]),
    ]
    missing = ["influence and attention of the last layer, which no cut can see"]
    if overlap:
        same = (
            f"Mean pairwise Jaccard index of the {TOP} most attended (and most influential) visual "
            f"tokens over different questions about one image; {asked} questions, {images} images"
        )
        tables.append(Table("fusion-overlap", same, overlap))
    else:
        missing.append("overlap between questions, because no image has two of them")
    caption = (
        f"Influence and attention by layer, overlap between questions, and {name} and divergence "
        f"without vision; {count} questions, 95 % intervals"
    )
    return Result(
        "fusion",
        TITLE,
        [*_influence_facts(influence), *_removal_facts(removal, dense, name), *_static(overlap)],
        tables,
        [Picture("fusion", caption, _draw(influence, removal, overlap, dense, name))],
        missing,
    )


def influence_rows(context: Context, notes: Sequence[Notes]) -> list[Row]:
    """For every layer but the last: ``critical``, tokens whose leave-one-out cosine is below
    :data:`CRITICAL`; ``prompts`` with at least one; ``largest``, one minus the least cosine;
    ``change``, the largest L2 change as a share of the output; ``attention``, the share of the last
    prompt token's attention that goes to visual tokens."""
    rows = []
    for layer in range(context.depth - 1):
        found = {
            "critical": [float((note.cosine[layer] < CRITICAL).sum()) for note in notes],
            "largest": [float(1 - note.cosine[layer].min()) for note in notes],
            "change": [float(note.change[layer].max() / note.output[layer]) for note in notes],
            "attention": [float(note.attention[layer].sum()) for note in notes],
        }
        line: Row = {"layer": layer, "prompts": sum(count > 0 for count in found["critical"])}
        for name, values in found.items():
            line |= flat(name, mean_over_images(np.array(values), context.groups))
        rows.append(line)
    return rows


def can_leave(rows: Sequence[Row], dense: float, name: str) -> int | None:
    """The earliest layer at whose input vision can leave, there and at every later one, for at most
    :data:`~prunus.analyse.knockout.TOLERANCE`; None if there is no such layer. ``rows`` ascend."""
    found = None
    for line in reversed(rows):
        if dense - line[name] > TOLERANCE + 1e-9:
            break
        found = int(line["layer"])
    return found


def _influence_facts(rows: Sequence[Row]) -> list[str]:
    most = max(rows, key=lambda line: float(line["critical"]))
    strongest = max(rows, key=lambda line: float(line["largest"]))
    looked = ", ".join(f"{100 * line['attention']:.0f}" for line in rows)
    listed = ", ".join(f"{line['critical']:.1f}" for line in rows)
    return [
        f"Visual tokens with a leave-one-out cosine below {CRITICAL}, mean per prompt, layers from "
        f"0 on: {listed}; most in layer {most['layer']}.",
        f"The strongest single token turns the output most in layer {strongest['layer']} (1 - cos "
        f"= {strongest['largest']:.3f} on average).",
        f"Share of the last prompt token's attention on visual tokens, %, layers from 0 on: "
        f"{looked}.",
    ]


def _removal_facts(rows: Sequence[Row], dense: Row, name: str) -> list[str]:
    leaving = [line for line in rows if line["vision"] == LEAVE]
    alone = [line for line in rows if line["vision"] == SKIP]
    layer = can_leave(leaving, dense[name], name)
    where = "at no layer" if layer is None else f"from layer {layer} on"
    worst = max(alone, key=lambda line: float(line["divergence"]))
    return [
        f"Vision can leave {where} for at most {100 * TOLERANCE:.0f} points of {name}.",
        f"The single layer whose view of the image is missed most is {worst['layer']}: "
        f"{100 * worst[name]:.1f} % without it (dense {100 * dense[name]:.1f} %), KL "
        f"{worst['divergence']:.3g}.",
    ]


def _static(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    most = max(rows, key=lambda line: float(line["overlap_attention"]))
    least = min(rows, key=lambda line: float(line["overlap_attention"]))
    return [
        f"Different questions about one image share most of their {TOP} most attended tokens in "
        f"layer {most['layer']} (Jaccard {most['overlap_attention']:.2f}) and least in layer "
        f"{least['layer']} ({least['overlap_attention']:.2f}); by chance {most['by_chance']:.3f}."
    ]


def _draw(
    influence: Sequence[Row],
    removal: Sequence[Row],
    overlap: Sequence[Row],
    dense: Row,
    name: str,
) -> Drawing:
    def draw(figure: Any) -> None:
        axes = figure.subplots(2, 3).flat
        layers = [line["layer"] for line in influence]
        band(axes[0], layers, influence, "critical", f"cosine < {CRITICAL}", 0)
        panel(axes[0], "Tokens that matter by themselves", "decoder layer", "tokens per prompt")
        band(axes[1], layers, influence, "largest", "1 - least cosine", 0)
        band(axes[1], layers, influence, "change", "largest change / output", 1)
        axes[1].set_yscale("log")
        panel(axes[1], "Influence of the strongest token", "decoder layer", "share (log scale)")
        band(axes[2], layers, influence, "attention", "on visual tokens", 0, 100)
        panel(axes[2], "Attention of the last prompt token", "decoder layer", "%")
        axes[0].set_ylim(bottom=0)
        axes[2].set_ylim(0, 100)
        for number, what in enumerate((LEAVE, SKIP)):
            own = [line for line in removal if line["vision"] == what]
            places = [line["layer"] for line in own]
            band(axes[3], places, own, name, f"vision {what}", number, 100)
            band(axes[4], places, own, "divergence", f"vision {what}", number)
        level(axes[3], 100 * dense[name], "dense")
        axes[3].set_ylim(bottom=0)
        axes[4].set_yscale("log")
        panel(axes[3], "Without vision: answers", "layer l", f"{name}, %")
        panel(axes[4], "Without vision: first answer token", "layer l", "KL divergence, nats")
        if overlap:
            band(axes[5], layers, overlap, "overlap_attention", "most attended", 0)
            band(axes[5], layers, overlap, "overlap_change", "most influential", 1)
            level(axes[5], overlap[0]["by_chance"], "chance")
            axes[5].set_ylim(0, 1)
            title = f"Same top {TOP} for different questions"
            panel(axes[5], title, "decoder layer", "mean Jaccard index")
        else:
            axes[5].set_axis_off()
        for axis in axes[: 5 + bool(overlap)]:
            whole_ticks(axis, layers if axis not in (axes[3], axes[4]) else places)
            axis.legend()

    return Drawing(12.0, 7.2, draw)
