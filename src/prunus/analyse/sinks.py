"""Attention sinks among the visual tokens: much looked at, with next to nothing to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunus.analyse.context import Context, Step
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.measure import flat
from prunus.analyse.objects import known, shown
from prunus.analyse.plots import COLOURS, Drawing, band, panel, whole_ticks
from prunus.analyse.result import Picture, Result, Row, Table
from prunus.analyse.signals import Notes, collect

TITLE = "Attention sinks among visual tokens"

#: The rule: value norm below this share of the image's median, and attention of the last prompt
#: token above its mean over the image's tokens by this many standard deviations (of the N values).
LOW_NORM, DEVIATIONS = 0.6, 3.0
_DOTS = 4000  # tokens in each scatter plot


def work(context: Context) -> int:
    """Prompts that :func:`run` will put through the model."""
    return len(context.data.queries)


def low_norm(value_norm: Tensor) -> Tensor:
    """Bool ``[N]``: L1 norm of the value far below the median of ``value_norm [N]``."""
    return value_norm < LOW_NORM * value_norm.quantile(0.5)


def attended(attention: Tensor) -> Tensor:
    """Bool ``[N]``: ``attention [N]`` far above its mean."""
    return attention > attention.mean() + DEVIATIONS * attention.std(correction=0)


def run(context: Context, step: Step) -> Result:
    """Counts for every layer but the last, and scatter plots of three of them."""
    notes = collect(context, step)
    layers = range(context.depth - 1)
    rows = [_row(context, notes, layer) for layer in layers]
    count = len(notes)
    rule = (
        f"value L1 norm (all heads) below {LOW_NORM:g} of the image's median and attention of the "
        f"last prompt token more than {DEVIATIONS:g} standard deviations above its mean"
    )
    about = f"Sinks by layer: {rule}; means over {count} prompts, 95 % intervals over images"
    three = sorted({0, len(layers) // 2, len(layers) - 1})
    dots = (
        f"Value norm and attention of visual tokens in layers {', '.join(map(str, three))} (at "
        f"most {_DOTS} random tokens of {count} prompts); dashed: the rule's limit of the norm"
    )
    return Result(
        "sinks",
        TITLE,
        _facts(rows),
        [Table("sinks", about, rows)],
        [
            Picture("sinks", about, _draw(rows)),
            Picture("sinks-scatter", dots, _draw_dots(context, notes, three)),
        ],
        ["the last layer, whose attention no cut can see"],
    )


def _row(context: Context, notes: Sequence[Notes], layer: int) -> Row:
    found: dict[str, list[float]] = {
        name: [] for name in ("sinks", "low_norm", "attended", "mass", "least_norm")
    }
    for note in notes:
        attention, norm = note.attention[layer], note.value_norm[layer]
        low, high = low_norm(norm), attended(attention)
        both = low & high
        found["sinks"].append(float(both.sum()))
        found["low_norm"].append(float(low.sum()))
        found["attended"].append(float(high.sum()))
        found["mass"].append(float(attention[both].sum() / attention.sum()))
        found["least_norm"].append(float(norm.min() / norm.quantile(0.5)))
    row: Row = {"layer": layer, "prompts": sum(count > 0 for count in found["sinks"])}
    for name, values in found.items():
        row |= flat(name, mean_over_images(np.array(values), context.groups))
    return row


def _facts(rows: Sequence[Row]) -> list[str]:
    most = max(rows, key=lambda row: float(row["sinks"]))
    if not most["sinks"]:
        listed = ", ".join(f"{row['least_norm']:.2f}" for row in rows)
        return [
            "No visual token of any layer fits the rule. The least value norm of an image, as a "
            f"share of its median, is on average (layers from 0 on): {listed}."
        ]
    listed = ", ".join(f"{row['sinks']:.1f}" for row in rows)
    return [
        f"Mean number of sinks per image (layers from 0 on): {listed}.",
        f"Most in layer {most['layer']}: {most['sinks']:.1f}, which get {most['mass']:.1%} of the "
        "last prompt token's attention on visual tokens.",
    ]


def _draw(rows: Sequence[Row]) -> Drawing:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        layers = [row["layer"] for row in rows]
        labels = {
            "low_norm": f"value norm < {LOW_NORM:g} median",
            "attended": f"attention > mean + {DEVIATIONS:g} std",
            "sinks": "both: sinks",
        }
        for number, (name, label) in enumerate(labels.items()):
            band(left, layers, rows, name, label, number)
        left.legend()
        panel(left, "Tokens per image", "decoder layer", "tokens")
        band(right, layers, rows, "mass", "attention on sinks, of that on visual tokens", 0, 100)
        band(right, layers, rows, "least_norm", "least value norm, % of the median", 1, 100)
        right.legend()
        panel(right, "Weight of sinks, and the smallest value", "decoder layer", "%")
        for axis in (left, right):
            whole_ticks(axis, layers)
            axis.set_ylim(bottom=-0.03 * axis.get_ylim()[1])  # lines at zero are to be seen

    return Drawing(10.0, 3.6, draw)


def _dots(
    context: Context, notes: Sequence[Notes], layer: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Of some tokens: value norm by median, attention by its mean, both within the image, and
    whether the token shows an object (False where unknown)."""
    norms, weights, objects = [], [], []
    for note, query in zip(notes, context.data.queries, strict=True):
        norm, attention = note.value_norm[layer].double(), note.attention[layer].double()
        norms.append((norm / norm.quantile(0.5)).numpy())
        weights.append((attention / attention.mean()).numpy())
        scene = context.data.drawn(query.image)
        on_object = np.zeros(note.grid.size, dtype=np.bool_)
        if scene is not None and known(scene, note.grid):
            on_object = shown(scene, note.grid)
        objects.append(on_object)
    every = np.concatenate(norms), np.concatenate(weights), np.concatenate(objects)
    some = np.random.default_rng(context.seed).permutation(len(every[0]))[:_DOTS]
    return every[0][some], every[1][some], every[2][some]


def _draw_dots(context: Context, notes: Sequence[Notes], layers: Sequence[int]) -> Drawing:
    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(layers), squeeze=False)[0]
        for axis, layer in zip(axes, layers, strict=True):
            norm, weight, on_object = _dots(context, notes, layer)
            for number, (label, own) in enumerate(
                (("other tokens", ~on_object), ("tokens on objects", on_object))
            ):
                if own.any():
                    axis.plot(
                        norm[own],
                        weight[own],
                        "os"[number],
                        color=COLOURS[number],
                        markersize=2,
                        alpha=0.35,
                        label=label,
                        markeredgewidth=0,
                    )
            axis.axvline(LOW_NORM, color="black", linewidth=0.9, linestyle=(0, (5, 3)))
            axis.set_yscale("log")
            panel(axis, f"layer {layer}", "value L1 norm / median", "attention / mean")
            axis.set_xlim(left=0)
        axes[0].legend(markerscale=3)

    return Drawing(10.0, 3.8, draw)
