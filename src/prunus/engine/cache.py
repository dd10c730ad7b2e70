"""KV-cache layers that hold fewer tokens than the prompt had, and say so."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

from prunus.errors import PrunusError, PrunusStateError

#: What stands in a cache for a layer that reads the keys of another (older transformers: nothing).
_NO_LAYER = getattr(cache_utils, "DummyLayer", DynamicLayer)
_OUTSIDE = (
    "this KV cache was pruned by prunus and can only be continued while pruning is active: do it "
    "inside `with prunus.prune(...)`, or use attach()"
)


class Lease:
    """For how long an engine looks after the caches that it pruned."""

    def __init__(self) -> None:
        self.runs = True


@dataclass(frozen=True)
class Resident:
    """What of the prompt one cache layer holds.

    Attributes:
        place: int64 ``[B, n]``, the logical position of each slot; the model's masks have a column
            for each of these.
        logical: length of the unpruned prompt, which positions and ``generate`` go by.
        valid: bool ``[B, n]``; None when no slot is padding.
        tail: tokens at the end of the prompt, behind the last visual one, that ``crop`` may remove.
        shift: int64 ``[B]``, subtracted from later position ids (compact positions); or None.
        closed: int64 ``[B]``, the same in this layer alone (positions closed up inside the
            decoder); or None.
    """

    place: Tensor
    logical: int
    valid: Tensor | None
    tail: int
    shift: Tensor | None = None
    closed: Tensor | None = None
    # What was made of it by number: layers that shared one go on sharing one.
    _made: dict[tuple[str, int], Resident] = field(init=False, default_factory=dict, repr=False)

    @property
    def length(self) -> int:
        """Physical tokens per row (padding included)."""
        return self.place.shape[1]

    @property
    def whole(self) -> bool:
        """Whether every token of the prompt is here, so that the model's masks are right."""
        return self.valid is None and self.place.shape[1] == self.logical

    def rows(self, index: Tensor) -> Resident:
        """The same for other rows of the batch (beams, repeats)."""
        return replace(
            self,
            place=_take(self.place, index),
            valid=None if self.valid is None else _take(self.valid, index),
            shift=None if self.shift is None else _take(self.shift, index),
            closed=None if self.closed is None else _take(self.closed, index),
        )

    def without_last(self, count: int) -> Resident:
        """The same without the last ``count`` tokens of every row."""
        logical, tail = self.logical - count, self.tail - count
        end = self.length - count
        return self._cut("end", count, slice(0, end), logical=logical, tail=tail)

    def from_slot(self, first: int) -> Resident:
        """The same without the slots before ``first``: they left the window."""
        return self._cut("start", first, slice(first, None))

    def _cut(self, kind: str, count: int, slots: slice, **rest: Any) -> Resident:
        if (kind, count) not in self._made:
            valid = None if self.valid is None else self.valid[:, slots]
            place = self.place[:, slots]
            self._made[kind, count] = replace(self, place=place, valid=valid, **rest)
        return self._made[kind, count]


def _take(values: Tensor, index: Any) -> Tensor:
    return values[torch.as_tensor(index, device=values.device)]


class PrunedLayer(DynamicLayer):
    """A dynamic layer whose physical length is shorter than its logical length.

    Lengths that it reports are logical, because positions, masks and ``generate``'s slicing follow
    them; the engine gathers from the model's masks what is physically here. Growing the layer
    without the engine would therefore be silently wrong, so it is refused.
    """

    def __init__(self, keys: Tensor, values: Tensor, prompt: Resident) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.keys: Tensor | None = keys
        self.values: Tensor | None = values
        self.is_initialized = True
        self.prompt = prompt
        self.seen = prompt.logical  # tokens so far
        self.lease: Lease | None = None  # set by the engine for the coming update

    @property
    def physical(self) -> int:
        """Tokens per row that are really here."""
        return 0 if self.keys is None else self.keys.shape[-2]

    @property
    def appended(self) -> int:
        """Tokens per row added after the prompt."""
        return self.seen - self.prompt.logical

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        # A step calls no more than it does on a plain cache: what DynamicLayer does is written out.
        lease, self.lease = self.lease, None
        if self.prompt.logical and (lease is None or not lease.runs):
            raise PrunusStateError(_OUTSIDE)  # nobody gathered a mask for it
        if not self.is_initialized:  # it was reset
            self.lazy_initialization(key_states, value_states)
        self.seen += key_states.shape[-2]
        self.keys = keys = torch.cat([self.keys, key_states], dim=-2)  # type: ignore[list-item]
        self.values = values = torch.cat([self.values, value_states], dim=-2)  # type: ignore[list-item]
        return keys, values

    @property
    def pruned(self) -> bool:
        """Whether a pruned prompt is here; after a reset there is none."""
        return self.prompt.logical > 0

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    def places(self, queries: int) -> Tensor:
        """Int64 ``[B, n]``: logical positions of what is held and of ``queries`` more tokens."""
        held = self.physical - self.prompt.length  # of those appended
        place = self.prompt.place
        new = torch.arange(self.seen - held, self.seen + queries, device=place.device)
        return torch.cat([place, new.expand(place.shape[0], -1)], dim=1)

    def valid(self, queries: int) -> Tensor | None:
        """Bool ``[B, n]``, which of :meth:`places` are no padding of ours; None: all."""
        valid = self.prompt.valid
        if valid is None:
            return None
        new = self.physical - self.prompt.length + queries
        return torch.cat([valid, valid.new_ones(valid.shape[0], new)], dim=1)

    def reset(self) -> None:
        super().reset()
        self.prompt = Resident(self.prompt.place[:, :0], 0, None, 0)
        self.seen = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Remove ``-tokens_to_remove`` tokens from the end, never reaching into visual tokens."""
        count = -tokens_to_remove
        if count < 0 or count > self.appended + self.prompt.tail:
            raise PrunusError(
                f"crop({tokens_to_remove}) reaches into the pruned part of the cache: give a "
                f"negative count of at most {self.appended + self.prompt.tail} tokens"
            )
        inside = max(0, count - self.appended)
        super().crop(tokens_to_remove)
        self.seen -= count
        if inside:
            self.prompt = self.prompt.without_last(inside)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.prompt = self.prompt.rows(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        rows = 0 if self.keys is None else self.keys.shape[0]
        super().batch_repeat_interleave(repeats)
        self.prompt = self.prompt.rows(torch.arange(rows).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.prompt = self.prompt.rows(indices)


class PrunedState(LinearAttentionLayer):
    """The state of a layer with linear attention that has read less than the whole prompt.

    What follows is read as it is, no mask is to be gathered; that other layers of the cache would
    need one is what an engine must know of.
    """

    def __init__(self, layer: LinearAttentionLayer) -> None:
        super().__init__()
        self.__dict__.update(vars(layer))
        self.pruned = True
        self.lease: Lease | None = None  # set by the engine for the coming update
        self._spoilt = False

    def update_conv_state(self, *args: Any, **kwargs: Any) -> Tensor:
        self._check()
        states: Tensor = super().update_conv_state(*args, **kwargs)
        return states

    def update_recurrent_state(self, *args: Any, **kwargs: Any) -> Tensor:
        self._check()
        self.lease = None  # it comes last
        states: Tensor = super().update_recurrent_state(*args, **kwargs)
        return states

    def _check(self) -> None:
        """Raise PrunusStateError unless the engine knows of the update that comes."""
        if self.pruned and (self.lease is None or not self.lease.runs):
            # A single token has been read into the convolution's part of the state by now.
            self._spoilt = True
            raise PrunusStateError(_OUTSIDE)

    def lend(self, lease: Lease) -> None:
        """Let the coming update pass.

        Raises:
            PrunusStateError: an update outside was refused when part of it was done.
        """
        if self._spoilt:
            raise PrunusStateError(
                "the state of a layer with linear attention was changed where pruning was not "
                "active, and cannot be used any more: start a new prompt"
            )
        self.lease = lease

    def crop(self, tokens_to_remove: int) -> None:
        raise PrunusError(
            f"crop({tokens_to_remove}): a layer with linear attention has read these tokens into "
            "its state and cannot forget them: start a new prompt"
        )

    def reset(self) -> None:
        super().reset()
        self.pruned = self._spoilt = False


class PrunedWindowLayer(PrunedLayer):
    """The same for a layer with a sliding window. It evicts by logical position, as the unmodified
    layer does: what the next token cannot see is let go of. Where rows of a batch lost different
    tokens, a slot stays until it left the window in all of them, and the mask hides it till then.
    """

    is_sliding = True

    def __init__(self, keys: Tensor, values: Tensor, prompt: Resident, window: int) -> None:
        super().__init__(keys, values, prompt)
        self.sliding_window = window
        place = prompt.place
        if prompt.valid is not None:
            place = place.masked_fill(~prompt.valid, -1)
        # By slot, the highest position of any row; on the host, so that steps read no device.
        self._newest: list[int] = place.amax(0).tolist()
        self._evict()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        self._evict()
        return keys, values

    def _evict(self) -> None:
        """Let go of what the next token does not see in any row."""
        first = self.seen - self.sliding_window + 1  # position that it sees
        gone = bisect_left(self._newest, first)
        if gone == len(self._newest):  # the prompt is gone
            gone += max(0, first - (self.seen - self.physical + gone))
        if gone and self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[:, :, gone:], self.values[:, :, gone:]
            self.prompt = self.prompt.from_slot(gone)
            self._newest = self._newest[gone:]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        offset = max(self.seen - self.sliding_window + 1, 0)
        return self.seen + query_length - offset, offset

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove and self.seen >= self.sliding_window:
            raise PrunusError(
                f"crop({tokens_to_remove}): this layer's window of {self.sliding_window} tokens is "
                "full, and what left it is gone: start a new prompt"
            )
        super().crop(tokens_to_remove)
        self._newest = self._newest[: self.prompt.length]

    def reset(self) -> None:
        super().reset()
        self._newest = []


#: Layers that hold all keys of what they ran on.
_GROWING = frozenset({DynamicLayer, PrunedLayer})
_KNOWN = _GROWING | {
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
    PrunedState,
    PrunedWindowLayer,
    _NO_LAYER,
}


def check_cache(cache: object) -> None:
    """Raise PrunusError unless ``cache`` is None or a dynamic cache with layers that are known."""
    if cache is None:
        return
    plain = type(cache) is DynamicCache and not getattr(cache, "offloading", False)
    layers = getattr(cache, "layers", [])
    found = set(map(type, layers))  # before every step: no call for each layer
    if not plain or not found <= _KNOWN:
        kinds = sorted(kind.__name__ for kind in found)
        raise PrunusError(
            f"prunus supports the plain DynamicCache only, not {type(cache).__name__} with layers "
            f"{', '.join(kinds) or 'unknown'}: static, quantised and offloaded caches keep lengths "
            "of their own (pass DynamicCache(), or nothing), and models that make such a cache "
            "themselves cannot be pruned"
        )
    if not found <= _GROWING and any(getattr(layer, "record_past", False) for layer in layers):
        raise PrunusError(
            "a cache whose sliding windows or states can be rolled back (assisted decoding) is not "
            "supported while pruning: generate without an assistant"
        )


def pruned_layer(layer: Any, keys: Tensor, values: Tensor, prompt: Resident) -> PrunedLayer:
    """The pruned layer that takes the place of ``layer``, holding ``keys`` and ``values``."""
    if layer.is_sliding:
        return PrunedWindowLayer(keys, values, prompt, layer.sliding_window)
    return PrunedLayer(keys, values, prompt)


def windows_of(cache: Cache, depth: int) -> list[int | None]:
    """Of each of ``depth`` layers of ``cache``, its sliding window in tokens; None where it has
    none. A layer that reads the keys of another holds as little as one with a window of 1."""
    found: list[int | None] = []
    for layer in cache.layers[:depth]:
        if type(layer) is _NO_LAYER is not DynamicLayer:
            found.append(1)
        else:
            sliding = getattr(layer, "is_sliding", False)
            found.append(int(layer.sliding_window) if sliding else None)
    return found + [1] * (depth - len(found))


def length_of(cache: Cache | None) -> int:
    """Logical tokens per row in ``cache``."""
    return 0 if cache is None else int(cache.get_seq_length())


def is_pruned(cache: Cache | None) -> bool:
    """Whether any layer of ``cache`` holds a pruned prompt."""
    for layer in () if cache is None else cache.layers:
        if type(layer) is not DynamicLayer and holds_less(layer):
            return True
    return False


def take_back(cache: Cache) -> None:
    """Let no update pass that has not come."""
    for layer in cache.layers:
        if isinstance(layer, PrunedLayer | PrunedState):
            layer.lease = None


def holds_less(layer: object) -> bool:
    """Whether a cache layer holds a pruned prompt. One that was reset is like any other."""
    return isinstance(layer, PrunedLayer | PrunedState) and layer.pruned
