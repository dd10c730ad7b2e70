"""From the engine's state to trace and record: rows become samples, tensors come to the CPU."""

from __future__ import annotations

from torch import Tensor

from prunus.engine.plan import Plan
from prunus.engine.prefill import Prefill
from prunus.grid import Grid
from prunus.trace import Record, TraceEntry


def make_trace(prefill: Prefill) -> list[TraceEntry]:
    """One entry per selection; of beams, which choose alike, the first row speaks."""
    firsts = [n for n, image in enumerate(prefill.images) if image.row % prefill.repeats == 0]

    def nested(values: list[Tensor]) -> list[list[Tensor]]:
        samples: list[list[Tensor]] = [[] for _ in range(prefill.samples)]
        for number in firsts:
            samples[prefill.images[number].sample].append(values[number].cpu())
        return samples

    grids = [
        [prefill.images[n].grid for n in firsts if prefill.images[n].sample == sample]
        for sample in range(prefill.samples)
    ]
    return [
        TraceEntry(
            place="features" if chosen.cut.layer is None else "decoder",
            layer=chosen.cut.layer,
            method=chosen.method,
            kept=nested(chosen.kept),
            grid=grids,
            scores=None if chosen.scores is None else nested(chosen.scores),
            trim_cache=chosen.cut.trim_cache,
        )
        for chosen in prefill.chosen
    ]


def make_record(prefill: Prefill, plan: Plan) -> Record:
    """The numbers of the last prompt."""
    step = prefill.repeats
    rows = range(0, len(prefill.text), step)
    images: list[list[Grid]] = [[] for _ in range(prefill.samples)]
    nominal: list[float] | None = [0.0] * prefill.samples
    for image in prefill.images:
        if image.row % step:
            continue
        images[image.sample].append(image.grid)
        asked = plan.methods[-1].nominal(image.grid.size)
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
        method_macs=prefill.macs / step,
        element_size=prefill.element_size,
    )
