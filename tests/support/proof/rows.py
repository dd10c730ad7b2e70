"""What a method is shown of a layer's attention: against the model's own eager attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunus import Cut, Method, Random, TraceEntry, View
from prunus.method.signals import Attention, LeaveOneOut, ValueNorm
from tests.support.decoders import DEPTH, Decoder
from tests.support.oracles.own_attention import Attended, watched
from tests.support.oracles.own_masks import hidden
from tests.support.proof.bench import ONE, PROMPTS, RAGGED, alive, model_of, prompt, pruned, visible

ROWS: dict[str, tuple[tuple[int, ...], Sequence[Method]]] = {
    "one": (ONE, []),
    "ragged": (RAGGED, []),
    "behind a cut": (RAGGED, [Random(keep=9, layer=1)]),
}
LOOKS = ("row", "value norm", "cosine", "change")


class Probe(Method):
    """Looks at every layer from ``first`` on, as ``looks`` say, and keeps everything."""

    def __init__(self, first: int = 0, looks: Sequence[str] = LOOKS) -> None:
        self.layers, self.looks = tuple(range(first, DEPTH - 1)), looks
        self.seen: dict[tuple[str, int, int, int], Tensor] = {}

    def cuts(self, depth: int) -> list[Cut]:
        kinds = {"row": Attention, "value norm": ValueNorm}
        looks = dict.fromkeys(kinds.get(look, LeaveOneOut) for look in self.looks)
        return [Cut(depth - 1, tuple(kind(layer) for kind in looks for layer in self.layers))]

    def counts(self, keep: object, original: int, depth: int) -> list[int]:
        return [original]

    def score(self, stage: int, view: View) -> Tensor:
        for layer in self.layers:
            for name in self.looks:
                values = _look(view, layer, name)
                for number, owner in enumerate(view.owners):
                    self.seen[(name, layer, *owner)] = values[number]
        return torch.zeros_like(view.sizes)


Probe.name = "probe"


def _look(view: View, layer: int, name: str) -> Tensor:
    if name == "row":
        return view[Attention(layer)]
    if name == "value norm":
        return view[ValueNorm(layer)]
    influence = view[LeaveOneOut(layer)]
    return influence.cosine if name == "cosine" else influence.change


def rows(decoder: Decoder, backend: str, looks: Sequence[str] = LOOKS) -> dict[str, float]:
    """Largest errors of each of ``looks`` over :data:`ROWS`."""
    errors: dict[str, float] = {}
    for images, before in ROWS.values():
        call = prompt(*images)
        probe = Probe(max((cut.layer or 0 for one in before for cut in one.cuts(DEPTH)), default=0))
        probe.looks = looks
        _, trace = pruned(decoder, backend, [*before, probe], call)
        for name, error in _compared(decoder, probe, trace[:-1], call).items():
            errors[name] = max(errors.get(name, 0.0), error)
    return errors


def _compared(
    decoder: Decoder, probe: Probe, cuts: list[TraceEntry], call: dict[str, Tensor]
) -> dict[str, float]:
    model, errors = model_of(decoder), dict.fromkeys(probe.looks, 0.0)
    with hidden(model, visible(cuts, call)):
        _, seen = watched(model, call)
    left, spots = alive(cuts, call), PROMPTS.spots(call["input_ids"])
    for (name, layer, row, image), found in probe.seen.items():
        places = [place for place in spots[row][image] if left[row, place]]
        every = literal(seen[layer][-1], row)
        expected = every[name][places]
        scale = 1.0 if name in ("row", "cosine") else float(every[name].max())
        errors[name] = max(errors[name], float((found - expected).abs().max()) / scale)
    assert len(probe.seen) >= len(probe.looks) * len(probe.layers)  # something was compared
    return errors


def literal(one: Attended, row: int) -> dict[str, Tensor]:
    """Float32 ``[K]`` each, for the last query: its row, and for every key the L1 norm of its
    values and what zeroing its weight does to the output, made by leaving it out."""
    weights, values = one.weights[row, :, -1].float(), one.values[row].float()
    parts = (weights[..., None] * values).transpose(0, 1).flatten(1)  # [K, H * d]
    whole = parts.sum(0)
    rest = whole - parts
    return {
        "row": weights.mean(0),
        "value norm": values.abs().sum((0, 2)),
        "cosine": torch.nn.functional.cosine_similarity(rest, whole[None], dim=-1),
        "change": (rest - whole).norm(dim=-1),
    }
