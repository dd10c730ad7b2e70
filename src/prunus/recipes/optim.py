"""Optimisers of the training stages: Muon for matrices between layers, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from prunus.errors import PrunusStateError


class Optimisers:
    """Two optimisers behind one interface, with a warm-up, plateau and decay of the rate."""

    def __init__(
        self, groups: Sequence[tuple[Sequence[nn.Module], float]], decay: float = 0.02
    ) -> None:
        """``groups`` pairs modules with their base learning rate."""
        if not hasattr(torch.optim, "Muon"):
            raise PrunusStateError(
                f"training needs torch 2.9 or newer; this is {torch.__version__}"
            )
        self.weights: list[nn.Parameter] = []
        self.rates: list[float] = []
        self.parts: list[torch.optim.Optimizer] = []
        for modules, rate in groups:
            matrices: list[nn.Parameter] = []
            others: list[nn.Parameter] = []
            for module in modules:
                lookup = isinstance(module, nn.Embedding)
                for name, weight in module.named_parameters():
                    inner = weight.ndim == 2 and min(weight.shape) >= 64
                    inner = inner and not lookup and "embed" not in name
                    inner = inner and not _is_vocabulary(module)
                    (matrices if inner else others).append(weight)
            muon = torch.optim.Muon(
                matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
            )
            self.parts += [
                muon,
                torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.97), weight_decay=0.0),
            ]
            self.rates += [rate, rate]
            self.weights += [*matrices, *others]

    def step(self, factor: float) -> None:
        """Clip, update at ``factor`` times the base rates, and clear the gradients."""
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        for part, rate in zip(self.parts, self.rates, strict=True):
            for group in part.param_groups:
                group["lr"] = rate * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """States of both parts."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Inverse of :meth:`state_dict`."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def rate_factor(step: int, total: int, warmup: int = 50, decay: float = 0.3) -> float:
    """Linear warm-up, plateau, and a linear fall to 2 % over the last ``decay`` of the steps."""
    rising = (step + 1) / warmup
    falling = (total - step) / max(1.0, decay * total)
    return max(0.02, min(1.0, rising, falling))


def _is_vocabulary(module: nn.Module) -> bool:
    """Whether a module is the output head, whose rows are words (AdamW suits those better)."""
    return isinstance(module, nn.Linear) and module.bias is None
