"""Edited attention, made of the model's own attention: the same module, run again on other values.

Attention weights cannot be reached in a fused kernel, but its output is linear in the values.
Weights that an edit sets to zero after the softmax give what zero *values* give; all their weight
on a sink gives what the *sink's value* in their place gives; keys taken out before the softmax are
a mask. So each edit is one more call of the unmodified module, of which the edited query rows are
taken. Nothing here uses the engine.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor

from prunus.checking.hidden import Hidden, NoOracle

_CACHES = ("past_key_values", "past_key_value", "cache")


class EditedAttention:
    """Post-hook of the attention of one decoder layer, for the prompt only."""

    def __init__(self, hidden: Hidden, number: int) -> None:
        self._hidden, self._number = hidden, number
        self._done = False

    def module_of(self, layer: Any) -> Any:
        """The attention of ``layer``.

        Raises:
            NoOracle: its values cannot be reached.
        """
        attention = getattr(layer, "self_attn", None)
        if getattr(attention, "v_proj", None) is None:
            raise NoOracle("attention without v_proj: edits of it cannot be repeated")
        return attention

    def __call__(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        if self._done:
            return None
        self._done = True
        kwargs = {
            # What layers leave for later ones is not to be changed by running one again.
            key: None if key in _CACHES else copy(value) if isinstance(value, dict) else value
            for key, value in kwargs.items()
        }
        mask = kwargs.get("attention_mask")
        if not isinstance(mask, Tensor) or mask.ndim != 4:
            raise NoOracle("this backend has no mask per query: edits cannot be repeated")
        mixed: Tensor = output[0] if isinstance(output, tuple) else output
        for rows, lost, sink in self._wanted(mixed.device):
            if sink is not None:
                again = self._run(module, args, kwargs, lost, sink)
            elif self._hidden.edits[self._number].renormalise:
                again = self._without(module, args, kwargs, mask, lost)
            else:
                again = self._run(module, args, kwargs, lost, None)
            mixed = torch.where(rows[..., None], again, mixed)
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    def _wanted(self, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Query rows ``[B, L]``, the keys ``[B, L]`` they lose, and int64 ``[B]`` the sink that
        gets the weight of these, or None."""
        hidden, edit = self._hidden, self._hidden.edits[self._number]
        own = hidden.present(self._number).to(device)
        rank = own.long().cumsum(1)
        text = hidden.valid.to(device) & ~hidden.visual.to(device) & (rank > 0)
        wanted: list[tuple[Tensor, Tensor, Tensor | None]] = []
        if edit.text == "merge":
            places = torch.arange(own.shape[1], device=device)
            number = edit.sink + 1 if edit.sink >= 0 else rank[:, -1:] + edit.sink + 1
            chosen = ((rank == number) & own).byte().argmax(1)
            first = own.byte().argmax(1)
            behind = places >= chosen[:, None]
            wanted.append((text & behind, own, chosen))
            wanted.append((text & ~behind, own, first))
        elif edit.text != "keep":
            half = own & (rank <= rank[:, -1:] // 2)
            wanted.append((text, half if edit.text == "half" else own, None))
        if edit.visual == "cut":
            wanted.append((own, own, None))
        return wanted

    def _run(
        self,
        module: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        lost: Tensor,
        sink: Tensor | None,
    ) -> Tensor:
        """The module's output where the values at ``lost`` are zero, or the sink's."""

        def replaced(_: Any, __: Any, values: Tensor) -> Tensor:
            other = torch.zeros_like(values)
            if sink is not None:
                at = sink.to(values.device)[:, None, None].expand(-1, 1, values.shape[-1])
                other = values.gather(1, at).expand_as(values)
            return torch.where(lost.to(values.device)[..., None], other, values)

        handle = module.v_proj.register_forward_hook(replaced)
        try:
            output = module.forward(*args, **kwargs)
        finally:
            handle.remove()
        mixed: Tensor = output[0] if isinstance(output, tuple) else output
        return mixed

    def _without(
        self,
        module: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        mask: Tensor,
        lost: Tensor,
    ) -> Tensor:
        """The module's output where the keys at ``lost`` are not there; zero attention where then
        no key is left."""
        gone = lost[:, None, None]
        if mask.dtype == torch.bool:
            fewer = mask & ~gone
            some = fewer.any(-1)
        else:
            lowest = torch.finfo(mask.dtype).min
            fewer = mask.masked_fill(gone, lowest)
            some = (fewer > lowest).any(-1)
        output = module.forward(*args, **{**kwargs, "attention_mask": fewer})
        mixed: Tensor = output[0] if isinstance(output, tuple) else output
        if bool(some.all()):
            return mixed
        nothing = self._run(module, args, kwargs, torch.ones_like(lost), None)
        return torch.where(some.any(1)[..., None], mixed, nothing)
