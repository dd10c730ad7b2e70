"""A KV-cache layer that holds fewer tokens than the prompt had, and says so."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


@dataclass(frozen=True)
class Resident:
    """What of the prompt one cache layer holds.

    Attributes:
        length: physical tokens per row (padding included).
        logical: length of the unpruned prompt, which positions and ``generate`` go by.
        valid: bool ``[B, length]``; None when no slot is padding.
        tail: tokens at the end of the prompt, behind the last visual one, that ``crop`` may remove.
        shift: int64 ``[B]``, subtracted from later position ids (compact positions); or None.
    """

    length: int
    logical: int
    valid: Tensor | None
    tail: int
    shift: Tensor | None = None

    def rows(self, index: Tensor) -> Resident:
        """The same for other rows of the batch (beams, repeats)."""
        valid = None if self.valid is None else self.valid[index.to(self.valid.device)]
        shift = None if self.shift is None else self.shift[index.to(self.shift.device)]
        return replace(self, valid=valid, shift=shift)


class PrunedLayer(DynamicLayer):
    """A dynamic layer whose physical length is shorter than its logical length.

    ``get_seq_length`` is the logical length, because positions and ``generate``'s slicing follow
    it; the attention mask must follow the physical one, which only the engine knows. Growing the
    layer without the engine would therefore be silently wrong in padded batches, so it is refused.
    """

    def __init__(self, keys: Tensor, values: Tensor, prompt: Resident) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.keys: Tensor | None = keys
        self.values: Tensor | None = values
        self.is_initialized = True
        self.prompt = prompt
        self.masked = False  # set by the engine when the coming update has a mask made for it

    @property
    def physical(self) -> int:
        """Tokens per row that are really here."""
        return 0 if self.keys is None else self.keys.shape[-2]

    @property
    def appended(self) -> int:
        """Tokens per row added after the prompt."""
        return self.physical - self.prompt.length

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.masked and self.prompt.logical:
            raise RuntimeError(
                "this KV cache was pruned by prunus and can only be continued while pruning is "
                "active: do it inside `with prunus.prune(...)`, or use attach()"
            )
        self.masked = False
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        return keys, values

    def get_seq_length(self) -> int:
        return self.prompt.logical + self.appended

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.physical + query_length, 0

    def reset(self) -> None:
        super().reset()
        self.prompt = Resident(0, 0, None, 0)

    def crop(self, tokens_to_remove: int) -> None:
        """Remove ``-tokens_to_remove`` tokens from the end, never reaching into visual tokens."""
        count = -tokens_to_remove
        if count < 0 or count > self.appended + self.prompt.tail:
            raise ValueError(
                f"crop({tokens_to_remove}) reaches into the pruned part of the cache: give a "
                f"negative count of at most {self.appended + self.prompt.tail} tokens"
            )
        inside = max(0, count - self.appended)
        super().crop(tokens_to_remove)
        if inside:
            valid = self.prompt.valid
            self.prompt = replace(
                self.prompt,
                length=self.prompt.length - inside,
                logical=self.prompt.logical - inside,
                tail=self.prompt.tail - inside,
                valid=None if valid is None else valid[:, : self.prompt.length - inside],
            )

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


def check_cache(cache: object) -> None:
    """Raise ValueError unless ``cache`` is None or a plain dynamic cache."""
    if cache is None:
        return
    plain = isinstance(cache, DynamicCache) and not getattr(cache, "offloading", False)
    if not plain or any(type(layer) not in (DynamicLayer, PrunedLayer) for layer in cache.layers):  # type: ignore[attr-defined]
        kinds = sorted({type(layer).__name__ for layer in getattr(cache, "layers", [])})
        raise ValueError(
            f"prunus supports the plain DynamicCache only, not {type(cache).__name__} with layers "
            f"{', '.join(kinds) or 'unknown'} (static, sliding-window, quantised and offloaded "
            "caches keep lengths of their own): pass past_key_values=DynamicCache() or nothing"
        )


def length_of(cache: Cache | None) -> int:
    """Logical tokens per row in ``cache``."""
    return 0 if cache is None else int(cache.get_seq_length())


def is_pruned(cache: Cache | None) -> bool:
    """Whether any layer of ``cache`` holds a pruned prompt."""
    return cache is not None and any(isinstance(layer, PrunedLayer) for layer in cache.layers)
