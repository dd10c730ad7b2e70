"""From the engine's state to trace and record: rows become samples, tensors come to the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from prunus.engine.cache import windows_of
from prunus.engine.chosen import Chosen
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


def _into(prefill: Prefill, chosen: Chosen) -> list[Tensor]:
    """By image, the survivor that each token is part of; also where nothing was merged."""
    found = []
    for image, kept, into in zip(prefill.images, chosen.kept, chosen.merged_into, strict=True):
        if into is None:
            into = kept.new_full((image.grid.size,), -1).scatter(0, kept, kept)
        found.append(into)
    return found


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
            mix=None if chosen.mix is None else nested(chosen.mix, lambda one: _on_cpu(one())),
            order=None if chosen.order is None else nested(chosen.order, Tensor.cpu),
            space=chosen.cut.space,
            compact=chosen.closed,
        )
        if chosen.mix is not None:
            entry = replace(entry, merged_into=nested(_into(prefill, chosen), Tensor.cpu))
        if chosen.reduced is not None:
            entry = replace(
                entry,
                merged_into=nested(chosen.reduced, lambda one: one.merged_into.cpu()),
                steps=nested(
                    chosen.reduced,
                    lambda one: [(block, s.cpu(), d.cpu()) for block, s, d in one.steps()],
                ),
                by_size=chosen.reduced[0].by_size,
                proportional=chosen.proportional,
            )
        entries.append(entry)
    return entries


@dataclass(frozen=True)
class _Cached:
    """What the cache of one layer holds of each row: visual tokens, all tokens, and all that it
    holds in the unmodified model."""

    visual: list[int]
    all: list[int]
    dense: list[int]


def _cached(prefill: Prefill) -> list[_Cached]:
    """For each layer, as far as its window reaches."""
    config = prefill.family.text_config
    windows = prefill.windows or windows_of(DynamicCache(config=config), prefill.depth)
    before = prefill.entry.present
    seen = torch.zeros_like(before)
    for image in prefill.images:
        seen[image.row, image.positions] = True
    found = []
    for layer, window in enumerate(windows):
        layout, visual = prefill.resident(layer)
        rows = list(zip(prefill.text, visual, prefill.original, strict=True))
        own = _Cached(visual, [t + v for t, v, _ in rows], [t + n for t, _, n in rows])
        if window is not None:
            first = max(0, before.shape[1] - window + 1)
            there, visible = layout.present[:, first:], seen[:, first:]
            counts = [mask.sum(1).tolist() for mask in (there & visible, there, before[:, first:])]
            own = _Cached(*counts)
        found.append(own)
    return found


def make_record(prefill: Prefill, plan: Plan) -> Record:
    """The numbers of the last prompt."""
    step = prefill.repeats
    rows = range(0, len(prefill.text), step)
    behind = prefill.behind() if plan.edits else []
    cached = _cached(prefill)
    images: list[list[AnyGrid]] = [[] for _ in range(prefill.samples)]
    nominal: list[float] | None = [0.0] * prefill.samples
    for image in prefill.images:
        if image.row % step:
            continue
        images[image.sample].append(image.grid)
        asked = plan.budget.asked(plan.budget.last, image.grid.pieces, image.grid.size)
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
        resident=[[own.visual[row] for row in rows] for own in cached],
        cached=[[own.all[row] for row in rows] for own in cached],
        cached_dense=[[own.dense[row] for row in rows] for own in cached],
        nominal=nominal,
        method_macs=prefill.macs / step + prefill.tower_macs,
        element_size=prefill.element_size,
        behind=[behind[row] for row in rows] if behind else (),
        methods=plan.methods,
        idle={n for m in plan.methods if m.adaptive for n in prefill.idle(m.name)},
    )
