"""The selector: encoder and pointer decoder, or the one-shot scorer that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.selector.config import SelectorConfig
from prunus.selector.encoder import Encoder
from prunus.selector.pointer import Picks, Pointer, Unrolled


class Selector(nn.Module):
    """Chooses visual tokens for a question. Runs in float32, whatever the model around it does.

    Inputs of all functions: ``features`` ``[B, N, D_v]`` where ``valid`` bool ``[B, N]``, and
    ``text`` ``[B, L, D_t]``, word embeddings of the question where ``text_valid`` bool ``[B, L]``.
    """

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        stepwise = config.kind == "stepwise"
        self.pointer = Pointer(config) if stepwise else None
        self.scorer = (
            None
            if stepwise
            else nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, 1))
        )
        self.float()  # whatever torch's default dtype is

    def encode(
        self, features: Tensor, valid: Tensor, text: Tensor, text_valid: Tensor, gate: float = 1.0
    ) -> Tensor:
        """Image tokens ``[B, N, D]`` that know each other and the question."""
        with torch.autocast(features.device.type, enabled=False):
            encoded: Tensor = self.encoder(features.float(), valid, text.float(), text_valid, gate)
        return encoded

    def unroll(
        self,
        encoded: Tensor,
        valid: Tensor,
        most: Sequence[int],
        keep: Sequence[int] | None = None,
    ) -> Unrolled:
        """The selection with its gradients: see :meth:`Pointer.unroll`."""
        pointer = self._pointer()
        with torch.autocast(encoded.device.type, enabled=False):
            return pointer.unroll(pointer.memory(encoded, valid), most, keep)

    def scores(self, encoded: Tensor) -> Tensor:
        """One-shot scores ``[B, N]`` of all tokens at once."""
        if self.scorer is None:
            raise PrunusError("a stepwise selector has no scores without steps: use unroll or pick")
        with torch.autocast(encoded.device.type, enabled=False):
            scores: Tensor = self.scorer(encoded)[..., 0]
        return scores

    @torch.no_grad()
    def pick(
        self,
        encoded: Tensor,
        valid: Tensor,
        most: Sequence[int],
        keep: Sequence[int] | None = None,
        bias: float = 0.0,
    ) -> Picks:
        """The selection at inference.

        Args:
            encoded, valid: from :meth:`encode`.
            most: T_max of each sample.
            keep: exactly so many of each sample, or None: until STOP (or T_max).
            bias: added to STOP's logit.
        """
        if self.pointer is not None:
            with torch.autocast(encoded.device.type, enabled=False):
                memory = self.pointer.memory(encoded, valid)
                return self.pointer.pick(memory, most, keep, bias)
        if keep is None:
            raise PrunusError("the one-shot selector cannot stop by itself: give keep")
        scores = self.scores(encoded).masked_fill(~valid, -torch.inf)
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, : max(keep)]
        return Picks(order, torch.tensor(keep, device=encoded.device), scores)

    def _pointer(self) -> Pointer:
        if self.pointer is None:
            raise PrunusError("a one-shot selector has no steps to unroll: use scores")
        return self.pointer

    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.parameters())
