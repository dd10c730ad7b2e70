"""A further call on a cache that was pruned: a decode step, or the next turn of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunus.engine.cache import (
    Lease,
    PrunedLayer,
    PrunedState,
    PrunedWindowLayer,
    holds_less,
)
from prunus.engine.groups import Groups, Swapped
from prunus.engine.masks import FLASH, Slots, gather_mask
from prunus.engine.rotary import rotary_module, tables
from prunus.errors import PrunusError
from prunus.families import Family

_NONE: frozenset[int] = frozenset()


class Resume:
    """One continuing call.

    Args:
        family: adapter of the model.
        cache: of which some layer is pruned; embeds: ``[B, Q, D]``, what the language model is
            given; mask: the mask of the call, if it has one.
        backend: the attention implementation.
        lease: of the engine.
        readers: :attr:`~prunus.families.Family.readers`.
        theirs: the mask, or masks, that the caller of the model gave.

    Attributes:
        given: by layer whose hook asked, the mask that it was given.
    """

    def __init__(
        self,
        family: Family,
        cache: Any,
        embeds: Tensor,
        mask: Any,
        backend: str,
        lease: Lease,
        readers: Mapping[int, int],
        theirs: Any = None,
    ) -> None:
        self._family = family
        self.cache, self.backend, self.lease = cache, backend, lease
        self.queries = embeds.shape[1]
        self.past = cache.get_seq_length()
        self._one = self.queries == 1
        if isinstance(mask, Tensor):
            self._check(mask)
        # Memory of what was gathered; what it was gathered from is kept beside it, so that its id
        # stays taken.
        self._made: dict[tuple[int, ...], tuple[Any, ...]] = {}
        self.given: dict[int, Any] = {}
        self._idle: set[int] = set()  # layers that have nothing to do
        self._swapped: list[Swapped] = []
        self._readers, self._theirs = readers, theirs
        # By layer whose keys later ones read, which run when it has stored what is new.
        self._plain: dict[int, bool] = {}
        self._masks: dict[int, Any] = {}

    def _check(self, mask: Tensor) -> None:
        """Raise PrunusError for a mask that the caller gave for another length than the prompt's,
        pruned or not, and what comes behind it."""
        total = self.past + self.queries
        wanted = (total,) if mask.ndim == 2 else (self.queries, total)
        if mask.shape[-len(wanted) :] != wanted:
            raise PrunusError(
                f"attention_mask has shape {tuple(mask.shape)}, but this cache continues a prompt "
                f"of {self.past} tokens with {self.queries} more: give a 2-D mask of all {total}, "
                f"or a 4-D one [batch, 1, {self.queries}, {total}]"
            )
        if mask.ndim != 4:
            return
        ours = [layer for layer in self.cache.layers if isinstance(layer, PrunedWindowLayer)]
        if any(layer.get_mask_sizes(self.queries)[1] for layer in ours):
            raise PrunusError(
                "a 4-D attention_mask of all tokens does not fit layers whose sliding window is "
                "full, which hold fewer: give a 2-D mask, from which the model makes both"
            )

    def shifted(self, ids: Tensor | None) -> Tensor | None:
        """Position ids that continue compacted ones, where they were compacted."""
        shift = None
        for layer in self.cache.layers:
            if isinstance(layer, PrunedLayer) and layer.pruned:
                shift = layer.prompt.shift
                break
        if shift is None:
            return ids
        if ids is None:
            ids = self.past + torch.arange(self.queries, device=shift.device)[None]
        return ids - shift.to(ids.device)[:, None]

    def settle(self, numbers: frozenset[int], mask: Any, shared: bool) -> frozenset[int] | None:
        """The first of the decoder layers ``numbers`` is called with ``mask``, as all of them will
        be: those that need their hooks, or None: all. The updates of the others are let pass.

        Args:
            shared: it is known that a mask is the very same tensor for all of them.
        """
        if not self._one:
            return None
        groups = Groups.of(self.cache.layers, numbers, self.past)
        if groups is None:
            return None
        needed = _NONE
        if mask is None:
            needed = frozenset(groups.hides)
        elif groups.pruned:
            if not shared or not isinstance(mask, Tensor) or self._is_theirs(mask):
                return None
            if not groups.hides and self._shows_all(mask):
                # One entry for all keys, however many a layer has.
                self._swapped.append(Swapped(mask, mask[..., :1]))
            else:
                most = groups.largest(min(numbers))
                if most is not groups.whole:
                    made = self._gathered(mask, self.cache.layers[most[0]], True, mask)
                    self._swapped.append(Swapped(mask, made))
                needed = numbers.difference(most)
        for layer in groups.lend:
            layer.lease = self.lease
        for state in groups.states:
            state.lend(self.lease)
        self._idle |= numbers - needed
        return needed

    def _is_theirs(self, mask: Tensor) -> bool:
        """Whether the caller made ``mask``, and not the model for this step."""
        given = self._theirs
        own = given.values() if isinstance(given, Mapping) else (given,)
        return mask.requires_grad or any(mask is one for one in own)

    def _shows_all(self, mask: Tensor) -> bool:
        """Whether ``mask`` hides nothing, where no device has to be waited for to tell. Eager
        attention always has a mask, the others only where it hides something."""
        return self.backend == "eager" and mask.device.type == "cpu" and not bool(mask.any())

    def passes(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether decoder layer ``number``, whose hook asks, runs as it is called."""
        mask = kwargs.get("attention_mask")
        self.given[number] = mask
        if number in self._idle:
            return True
        plain = self.is_plain(number, args, kwargs)
        return plain and all(mask is not one.mask for one in self._swapped)

    def is_plain(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the arguments of decoder layer ``number`` are right as they are. Lengths that
        caches of ours report are logical, so that the model's masks are right for the others."""
        if number in self._readers:
            return self._plain[self._readers[number]]
        plain = self._plain[number] = self._is_plain(number, args, kwargs)
        return plain

    def _is_plain(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        layer = self.cache.layers[number]
        if not holds_less(layer):
            return True
        if isinstance(layer, PrunedState):
            layer.lend(self.lease)
            return True
        layer.lease = self.lease
        if layer.prompt.whole and layer.prompt.closed is None:
            return self._one or self.backend not in FLASH
        return (
            self._one
            and layer.prompt.valid is None
            and layer.prompt.closed is None
            and len(args) < 2
            and kwargs.get("attention_mask") is None
            and not (isinstance(layer, PrunedWindowLayer) and self.past > layer.sliding_window - 2)
        )

    def layer(self, number: int, kwargs: dict[str, Any], causal: bool, states: Tensor) -> Any:
        """``kwargs`` of decoder layer ``number``, which are not plain, with the mask for what its
        cache really holds."""
        mask = kwargs.get("attention_mask")
        for one in self._swapped:
            if mask is one.mask:
                mask = one.whole
                kwargs = {**kwargs, "attention_mask": mask}
                if self.is_plain(number, (), kwargs):
                    return kwargs
        reads = self._readers.get(number)
        layer: PrunedLayer = self.cache.layers[number if reads is None else reads]
        if reads is None:
            self._masks[number] = self._gathered(mask, layer, causal, states)
        changed = {
            **kwargs,
            "attention_mask": self._masks[number if reads is None else reads],
        }
        if layer.prompt.closed is not None:
            ids = kwargs.get("position_ids")
            changed["position_embeddings"] = self._turned(layer.prompt.closed, ids, states)
        if self.backend in FLASH:  # it reads ids with gaps as packed sequences
            changed["position_ids"] = None
        return changed

    def _turned(self, closed: Tensor, ids: Tensor | None, states: Tensor) -> tuple[Tensor, ...]:
        """Rotary tables of a layer whose positions were closed up by ``closed`` (int64 ``[B]``)."""
        if ids is None:
            ids = self.past + torch.arange(self.queries, device=states.device)[None]
        key = (id(closed), id(ids))
        if key not in self._made:
            moved = ids.to(states.device) - closed.to(states.device)[:, None]
            self._made[key] = (closed, ids, tables(rotary_module(self._family), states, moved))
        found: tuple[Tensor, ...] = self._made[key][-1]
        return found

    def _gathered(self, mask: Any, layer: PrunedLayer, causal: bool, states: Tensor) -> Any:
        """The mask of ``layer``, made once for all that hold the same."""
        window = layer.sliding_window if isinstance(layer, PrunedWindowLayer) else 0
        key = (id(mask), id(layer.prompt.place), layer.physical, window)
        if key not in self._made:
            made = self._mask(mask, layer, causal, states)
            self._made[key] = (mask, layer.prompt, made)
        return self._made[key][-1]

    def _mask(self, mask: Any, layer: PrunedLayer, causal: bool, states: Tensor) -> Any:
        place, valid = layer.places(self.queries), layer.valid(self.queries)
        _, offset = layer.get_mask_sizes(self.queries)
        steps = torch.arange(self.queries, device=place.device).expand(place.shape[0], -1)
        if mask is None and isinstance(layer, PrunedWindowLayer):
            inside = place > self.past + self.queries - 1 - layer.sliding_window
            valid = inside if valid is None else valid & inside
        slots = Slots(steps + self.past, place, valid, self.past, offset)
        return gather_mask(mask, slots, self.backend, causal, states)
