"""Every signal of every layer and token, noted in one pass of the dense model over the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from prunus.analyse.context import Batch, Context, Step
from prunus.analyse.probe import Probe
from prunus.grid import AnyGrid
from prunus.method import View
from prunus.method.signals import Attention, LeaveOneOut, States, ValueNorm
from prunus.pruners.clse import CLSE
from prunus.run import prune
from prunus.signals.change import residual_norm
from prunus.signals.spectral import (
    at_each_resolution,
    evolution,
    gate,
    high_frequency,
    z_score,
)

#: The paper's cut-off and temperature.
CUTOFF, TEMPERATURE = CLSE().cutoff, CLSE().temperature

#: Scores of :meth:`Notes.scores` that compare a layer with the one before it, or with layer 0.
AGAINST = ("global", "adjacent")


@dataclass
class Notes:
    """What was noted of one prompt with one image of ``N`` visual tokens, float32 on the CPU.

    Lists have one entry per decoder layer. Of what enters a layer, ``[N]``: ``spectrum``, the
    high-frequency map S (CLSE, Eq. 10); ``amplitude``, mean over channels of the absolute state;
    ``level``, mean over channels; ``moved[name]``, L1 norm of the difference to the state that
    entered layer 0 ("global") or the layer before ("adjacent"), from layer 1 on (entry 0 is layer
    1); ``turned``, the map S of the difference to layer 0, likewise. Of what happens in a layer,
    all but the last, for the last prompt token: ``attention`` (mean over heads), leave-one-out
    ``cosine`` and ``change`` (L2) of its attention output, each ``[N]``; ``output``, norm of that
    output, ``[]``; and ``value_norm [N]``, L1 norm of a token's values, all heads together.
    """

    grid: AnyGrid
    spectrum: list[Tensor] = field(default_factory=list)
    amplitude: list[Tensor] = field(default_factory=list)
    level: list[Tensor] = field(default_factory=list)
    moved: dict[str, list[Tensor]] = field(default_factory=lambda: {name: [] for name in AGAINST})
    attention: list[Tensor] = field(default_factory=list)
    cosine: list[Tensor] = field(default_factory=list)
    change: list[Tensor] = field(default_factory=list)
    output: list[Tensor] = field(default_factory=list)
    value_norm: list[Tensor] = field(default_factory=list)
    turned: list[Tensor] = field(default_factory=list)

    def intensity(self, layer: int, reference: int) -> Tensor:
        """CLSE's evolution intensity ``[N]`` between what enters ``reference`` and ``layer``."""
        now, then = self.spectrum[layer][None], self.spectrum[reference][None]
        return at_each_resolution(self.grid, evolution, now, then)[0]

    def scores(self, layer: int) -> dict[str, Tensor]:
        """Every score ``[N]`` by which tokens might be kept at the input of ``layer`` (>= 1).

        ``intensity`` (CLSE), ``residual`` (SFR: L1 norm of the state's change) and ``mean`` (MMD:
        absolute change of its mean over channels) come in two forms, against layer 0 ("global")
        and against the layer before ("adjacent"); ``attention``, ``hybrid`` (gated attention) and
        ``influence`` (L2 change of the last token's attention output) look at the layer before.
        What intensity is made of: ``content``, the map S itself; ``growth``, its absolute change
        since layer 0, not divided by anything; ``turn``, the map S of the change since then.
        """
        found: dict[str, Tensor] = {}
        for name, reference in zip(AGAINST, (0, layer - 1), strict=True):
            found[f"intensity, {name}"] = self._ranked(self.intensity(layer, reference))
            found[f"residual, {name}"] = self.moved[name][layer - 1]
            found[f"mean, {name}"] = (self.level[layer] - self.level[reference]).abs()
        attention = self.attention[layer - 1]
        opening = partial(gate, temperature=TEMPERATURE)
        opened = at_each_resolution(self.grid, opening, self.intensity(layer, 0)[None])[0]
        found["attention"] = attention
        found["hybrid"] = opened * attention
        found["influence"] = self.change[layer - 1]
        found["content"] = self.spectrum[layer]
        found["growth"] = (self.spectrum[layer] - self.spectrum[0]).abs()
        found["turn"] = self.turned[layer - 1]
        return found

    def _ranked(self, intensity: Tensor) -> Tensor:
        """What CLSE ranks by: z-scores where an image is shown at several resolutions."""
        if len(self.grid.resolutions) < 2:
            return intensity
        return at_each_resolution(self.grid, z_score, intensity[None])[0]


def collect(context: Context, step: Step) -> list[Notes]:
    """Notes of every question of ``context``, taken once and remembered."""
    if "notes" not in context.memo:
        context.memo["notes"] = note(context, context.batches, step)
    else:
        step(len(context.data.queries))
    found: list[Notes] = context.memo["notes"]
    return found


def note(context: Context, batches: Sequence[Batch], step: Step) -> list[Notes]:
    """Notes of all prompts in ``batches``, in the order of their numbers."""
    found: dict[int, Notes] = {}
    for batch in batches:
        own: dict[int, Notes] = {}
        with torch.inference_mode(), prune(context.model, Probe(_Writer(own))):
            context.model(**context.inputs(batch), logits_to_keep=1)
        found |= {number: own[sample] for sample, number in enumerate(batch.queries)}
        step(len(batch.queries))
    return [found[number] for number in sorted(found)]


class _Writer:
    """Writes views into the notes of their samples."""

    def __init__(self, notes: dict[int, Notes]) -> None:
        self._notes = notes

    def __call__(self, layer: int, view: View) -> None:
        first = view[States(0)]
        before = first if layer == 1 else view[States(layer - 1)]
        if layer == 1:
            for sample, _ in view.owners:
                self._notes[sample] = Notes(view.grid)
            self._state(view, first)
        self._state(view, view.states)
        self._keep(
            view, {"turned": high_frequency(view.states.float() - first.float(), view.grid, CUTOFF)}
        )
        for name, reference in zip(AGAINST, (first, before), strict=True):
            for own, values in self._each(view, residual_norm(view.states, reference)):
                own.moved[name].append(values)
        influence = view[LeaveOneOut(layer - 1)]
        of_layer = {
            "attention": view[Attention(layer - 1)],
            "cosine": influence.cosine,
            "change": influence.change,
            "output": influence.output,
            "value_norm": view[ValueNorm(layer - 1)],
        }
        self._keep(view, of_layer)

    def _state(self, view: View, states: Tensor) -> None:
        values = states.float()
        of_state = {
            "spectrum": high_frequency(states, view.grid, CUTOFF),
            "amplitude": values.abs().mean(dim=-1),
            "level": values.mean(dim=-1),
        }
        self._keep(view, of_state)

    def _keep(self, view: View, found: dict[str, Tensor]) -> None:
        for name, tensor in found.items():
            for own, values in self._each(view, tensor):
                getattr(own, name).append(values)

    def _each(self, view: View, tensor: Tensor) -> list[tuple[Notes, Tensor]]:
        rows = tensor.float().cpu().unbind(0)
        return [
            (self._notes[sample], row) for (sample, _), row in zip(view.owners, rows, strict=True)
        ]
