"""A further call on a cache that was pruned: a decode step, or the next turn of text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunus.engine.cache import PrunedLayer
from prunus.engine.calls import cache_of
from prunus.engine.masks import causal_mask


class Resume:
    """One continuing call; ``kwargs`` are those of the language model, ``backend`` the attention
    implementation."""

    def __init__(self, kwargs: dict[str, Any], backend: str) -> None:
        self.backend = backend
        self.cache = cache_of(kwargs)
        self.embeds: Tensor = kwargs["inputs_embeds"]
        self.queries = self.embeds.shape[1]
        mask = kwargs.get("attention_mask")
        self.past = self.cache.get_seq_length()
        if mask is not None and (mask.ndim != 2 or mask.shape[1] != self.past + self.queries):
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)}, but this cache continues a prompt "
                f"of {self.past} tokens with {self.queries} more: give a 2-D mask of all "
                f"{self.past + self.queries}"
            )
        self.mask: Tensor | None = mask
        self._made: dict[tuple[int, int], tuple[Tensor | None, Tensor | None]] = {}

    def shifted(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """``kwargs`` with position ids that continue compacted ones, where they were compacted."""
        first = next(layer for layer in self.cache.layers if isinstance(layer, PrunedLayer))
        shift = first.prompt.shift
        if shift is None:
            return kwargs
        ids = kwargs.get("position_ids")
        if ids is None:
            ids = self.past + torch.arange(self.queries, device=shift.device)[None]
        return {**kwargs, "position_ids": ids - shift.to(ids.device)[:, None]}

    def layer(self, number: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        """``kwargs`` of decoder layer ``number`` with the mask for what its cache really holds."""
        layer = self.cache.layers[number]
        if isinstance(layer, PrunedLayer):
            layer.masked = True
            held, logical, valid = layer.physical, layer.prompt.logical, layer.prompt.valid
            length = layer.prompt.length
        elif isinstance(self.cache.layers[0], PrunedLayer):
            # The model makes one mask, for the length that it finds in layer 0.
            held, logical, valid, length = self.past, 0, None, 0
        else:
            return kwargs
        key = (id(valid), held)
        if key not in self._made:  # `valid` is kept beside the mask, so that its id stays taken
            self._made[key] = (valid, self._mask(held, logical, valid, length))
        return {**kwargs, "attention_mask": self._made[key][1], "position_ids": None}

    def _mask(self, held: int, logical: int, valid: Tensor | None, length: int) -> Tensor | None:
        """Mask for a layer that holds ``held`` tokens, of which the first ``length`` (``valid``,
        where not all are) stand for ``logical`` tokens of the prompt."""
        device, keys = self.embeds.device, held + self.queries
        both = None
        if valid is not None or self.mask is not None:
            batch = self.embeds.shape[0]
            old, new = valid, self.mask
            if old is None:
                old = torch.ones(batch, length, dtype=torch.bool, device=device)
            if new is None:
                new = torch.ones(batch, keys - length, dtype=torch.bool, device=device)
            else:
                new = new[:, logical:].bool()
            both = torch.cat([old.to(device), new.to(device)], dim=1)
        return causal_mask(both, self.queries, keys, self.embeds.dtype, device, self.backend)
