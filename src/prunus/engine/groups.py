"""Decoder layers that are given one mask: which of them hold the same tokens in a decode step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

from prunus.engine.cache import PrunedLayer, PrunedState, PrunedWindowLayer

_WHOLE = frozenset({DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer})


@dataclass
class Groups:
    """Layers of a cache by what they hold.

    Attributes:
        whole: those that hold the whole prompt, or read no mask.
        pruned: those that hold less: for each layout and length, those that share it.
        hides: those of which the next token does not see every slot.
        lend, states: cache layers whose coming update the engine has to let pass.
    """

    whole: list[int] = field(default_factory=list)
    pruned: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    hides: list[int] = field(default_factory=list)
    lend: list[PrunedLayer] = field(default_factory=list)
    states: list[PrunedState] = field(default_factory=list)

    @classmethod
    def of(cls, layers: list[Any], numbers: Iterable[int], past: int) -> Groups | None:
        """Those of the layers ``numbers``, behind ``past`` tokens, or None where one of them is of
        another kind, or has positions of its own. Without a call for each layer: a step of a plain
        model has none either."""
        found = cls()
        whole, pruned, hides, lend = found.whole, found.pruned, found.hides, found.lend
        for number in numbers:
            layer = layers[number]
            kind = type(layer)
            if kind is PrunedLayer or kind is PrunedWindowLayer:
                prompt = layer.prompt
                if prompt.closed is not None or not prompt.logical:
                    return None
                lend.append(layer)
                place = prompt.place
                if prompt.valid is None and place.shape[1] == prompt.logical:
                    whole.append(number)
                    continue
                key = (id(place), layer.keys.shape[-2])
                if key in pruned:
                    pruned[key].append(number)
                else:
                    pruned[key] = [number]
                over = kind is PrunedWindowLayer and past > layer.sliding_window - 2
                if over or prompt.valid is not None:
                    hides.append(number)
            elif kind in _WHOLE:
                whole.append(number)
            elif kind is PrunedState:
                whole.append(number)
                found.states.append(layer)
            else:
                return None
        return found

    def largest(self, first: int) -> list[int]:
        """The layers that may most of all do without hooks, of which ``first`` never does."""
        every = [self.whole, *self.pruned.values()]
        return max(every, key=lambda own: len(own) - (first in own))


class Swapped:
    """The mask that a model gave to many layers, which now says what most of them are to see.

    A layer is called with the very tensor that the model made for this step, and nobody stands in
    between: so it is this tensor whose content changes, before the first of them runs.
    """

    def __init__(self, mask: Tensor, instead: Tensor) -> None:
        self.mask, self.whole = mask, mask.detach()
        mask.data = instead.to(mask.dtype)
