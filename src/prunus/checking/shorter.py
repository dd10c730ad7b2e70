"""A layer with linear attention of the unpruned model, given the shorter sequence itself.

No mask can show what such a layer makes of fewer tokens: a hidden one would still be a step of its
state. So the tokens that are not hidden are put side by side for this one layer, and its output
back where they were. Nothing here uses the engine.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunus.checking.features import Features, with_states
from prunus.checking.hidden import Hidden, NoOracle


class Shorter:
    """Hooks in front of and behind decoder layer ``number``, for one prompt and its answer."""

    def __init__(self, hidden: Hidden, number: int, features: Features | None) -> None:
        self._hidden, self._features = hidden, features
        self._there = hidden.valid & ~hidden.prompt[number]
        if bool((hidden.later[number] & ~hidden.prompt[number]).any()):
            raise NoOracle(
                f"layer {number} is to forget tokens, which the state of linear attention cannot"
            )
        self._whole: Tensor | None = None  # states of the prompt, while the layer runs
        self._prompt = True
        counts = self._there.sum(1, keepdim=True)
        size = int(counts.max())
        # Left-padded rows of what is there, in order.
        order = torch.sort(self._there.byte(), dim=1, stable=True).indices
        self._index = order[:, order.shape[1] - size :]
        self._valid = torch.arange(size, device=counts.device)[None] >= size - counts

    def before(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The states of the prompt that are not hidden; tokens behind it are read as they come."""
        if not self._prompt:
            return None
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        if states.shape[1] != self._hidden.length:
            raise NoOracle("the decoder does not read the prompt in one piece")
        if self._features is not None:
            states = self._features.put_into(states, self._hidden)
        self._prompt, self._whole = False, states
        shorter = states.gather(1, self._at(states))
        args, kwargs = with_states(args, kwargs, shorter)
        return args, {**kwargs, "attention_mask": self._valid.to(states.device)}

    def behind(self, module: Any, args: Any, kwargs: Any, output: Any) -> Tensor | None:
        """The output at full length; hidden tokens, which nobody sees, stay what they were."""
        whole, self._whole = self._whole, None
        if whole is None:
            return None
        if not isinstance(output, Tensor):
            raise NoOracle(f"decoder layers give {type(output).__name__}, not states")
        at = self._at(whole)
        there = self._valid.to(whole.device)[..., None]
        return whole.scatter(1, at, torch.where(there, output, whole.gather(1, at)))

    def _at(self, states: Tensor) -> Tensor:
        return self._index.to(states.device)[..., None].expand(-1, -1, states.shape[-1])
