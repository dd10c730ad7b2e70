"""From the engine's state to trace and record: rows become samples, tensors come to the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from prunus.engine.plan import Plan
from prunus.engine.prefill import Prefill
from prunus.grid import AnyGrid
from prunus.results.record import Record
from prunus.results.trace import TraceEntry

T = TypeVar("T")
U = TypeVar("U")


def _on_cpu(parts: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    into, of, weight = parts
    return into.cpu(), of.cpu(), weight.cpu()


def _into(tokens: Tensor | None, kept: Tensor, size: int) -> Tensor:
    """``merged_into`` of an image; of one in which nothing was merged, beside others in which some
    was, from what it keeps."""
    if tokens is None:
        tokens = torch.full((size,), -1, dtype=torch.long)
        tokens[kept.cpu()] = kept.cpu()
    return tokens.cpu()


def make_trace(prefill: Prefill) -> list[TraceEntry]:
    """One entry per selection; of beams, which choose alike, the first row speaks."""
    firsts = [n for n, image in enumerate(prefill.images) if image.row % prefill.repeats == 0]

    def nested(values: Sequence[T], convert: Callable[[T], U]) -> list[list[U]]:
        samples: list[list[U]] = [[] for _ in range(prefill.samples)]
        for number in firsts:
            samples[prefill.images[number].sample].append(convert(values[number]))
        return samples

    grids = nested(prefill.images, lambda image: image.grid)
    kinds = nested(prefill.images, lambda image: image.kind)
    entries = []
    for chosen in prefill.chosen:
        place = "features" if chosen.cut.layer is None else "decoder"
        if chosen.edits or chosen.forgets:
            place = "attention"
        entry = TraceEntry(
            place=place if chosen.reduced is None else "encoder",
            layer=chosen.cut.layer,
            method=chosen.method,
            kept=nested(chosen.kept, Tensor.cpu),
            grid=grids,
            kind=kinds,
            scores=None if chosen.scores is None else nested(chosen.scores, Tensor.cpu),
            trim_cache=chosen.cut.trim_cache,
            labels=None if chosen.labels is None else nested(chosen.labels, str),
            edits=chosen.edits,
            forgets=chosen.forgets,
            mix=None if chosen.mix is None else nested(chosen.mix, _on_cpu),
            order=None if chosen.order is None else nested(chosen.order, Tensor.cpu),
            space=chosen.cut.space,
            compact=chosen.cut.compact,
        )
        if chosen.mix is not None:
            sizes = [image.grid.size for image in prefill.images]
            parts = zip(chosen.merged_into, chosen.kept, sizes, strict=True)
            into = [_into(*part) for part in parts]
            entry = replace(entry, merged_into=nested(into, Tensor.cpu))
        if chosen.reduced is not None:
            entry = replace(
                entry,
                merged_into=nested(chosen.reduced, lambda one: one.merged_into.cpu()),
                steps=nested(
                    chosen.reduced,
                    lambda one: [(block, s.cpu(), d.cpu()) for block, s, d in one.steps],
                ),
                by_size=chosen.reduced[0].by_size,
                proportional=chosen.proportional,
            )
        entries.append(entry)
    return entries


def make_record(prefill: Prefill, plan: Plan) -> Record:
    """The numbers of the last prompt."""
    step = prefill.repeats
    rows = range(0, len(prefill.text), step)
    behind = prefill.behind() if plan.edits else []
    images: list[list[AnyGrid]] = [[] for _ in range(prefill.samples)]
    nominal: list[float] | None = [0.0] * prefill.samples
    for image in prefill.images:
        if image.row % step:
            continue
        images[image.sample].append(image.grid)
        asked = plan.budget.asked(plan.last, image.grid.frames, image.grid.size)
        if asked is None or nominal is None:
            nominal = None
        else:
            nominal[image.sample] += asked
    return Record(
        entries=make_trace(prefill),
        samples=prefill.samples,
        original=[prefill.original[row] for row in rows],
        text=[prefill.text[row] for row in rows],
        images=images,
        per_layer=[[counts[row] for row in rows] for counts in prefill.counts],
        resident=[
            [prefill.resident(layer)[1][row] for row in rows] for layer in range(prefill.depth)
        ],
        nominal=nominal,
        method_macs=prefill.macs / step + prefill.tower_macs,
        element_size=prefill.element_size,
        behind=[behind[row] for row in rows] if behind else (),
        methods=plan.methods,
        idle=len({n for m in plan.methods if m.adaptive for n in prefill.idle(m.name)}),
    )
