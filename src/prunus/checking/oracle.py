"""What a pruned run has to equal: the unpruned model, in which tokens are merely not seen.

Nothing here uses the engine. Every decoder layer of the plain model gets the mask that the model
itself made, with the hidden tokens taken out; windows, prefixes and padding stay what they are. A
layer with linear attention, to which a mask says little, is given the shorter sequence itself
(:mod:`prunus.checking.shorter`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunus.checking.edited import EditedAttention
from prunus.checking.features import Features, with_states
from prunus.checking.hidden import Hidden, NoOracle
from prunus.checking.shorter import Shorter
from prunus.families import Family


@contextmanager
def masked(family: Family, hidden: Hidden, features: Features | None = None) -> Iterator[None]:
    """Inside the block the plain model does not see what is ``hidden``, and its attention is edited
    as ``hidden.edits`` say: for one ``forward`` or ``generate`` of the prompt.

    Args:
        features: what the images are, where tokens were merged in the tower.
    """
    if features is not None and family.has_side_inputs:
        raise NoOracle(
            "it merges tokens whose features enter behind decoder layers as well, which is not "
            "repeated here"
        )
    if hidden.beyond:
        raise NoOracle(f"it {hidden.beyond} inside the language model, which masks cannot show")
    handles = [_whole(family, hidden, features)]
    if family.along:
        features = None  # they are in what goes along as well
    try:
        for number, layer in enumerate(family.layers):
            own = features if number == 0 else None
            if number in family.recurrent:
                one = Shorter(hidden, number, own)
                handles.append(layer.register_forward_pre_hook(one.before, with_kwargs=True))
                handles.append(layer.register_forward_hook(one.behind, with_kwargs=True))
                continue
            hook = _Masks(family, hidden, number, own)
            handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
            if number in hidden.edits:
                edited = EditedAttention(hidden, number)
                attention = edited.module_of(layer)
                handles.append(attention.register_forward_hook(edited, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _whole(family: Family, hidden: Hidden, features: Features | None) -> RemovableHandle:
    """Pre-hook of the language model, which is to run all layers on all tokens; merged ``features``
    are put into its embeddings where it makes more of these than states."""
    left = features if family.along else None

    def before(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        nonlocal left
        kwargs = family.whole_call(kwargs)
        if left is not None:
            embeds = left.put_into(kwargs["inputs_embeds"], hidden)
            kwargs, left = {**kwargs, "inputs_embeds": embeds}, None
        return args, kwargs

    model: nn.Module = family.language_model
    return model.register_forward_pre_hook(before, with_kwargs=True)


@contextmanager
def captured(family: Family) -> Iterator[list[Tensor]]:
    """The states that enter the first decoder layer, call by call. To be entered while the model is
    being pruned already, so that what is seen is what is left."""
    seen: list[Tensor] = []

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).clone())

    handle = family.layers[0].register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


class _Masks:
    """Pre-hook of one decoder layer; counts what it has seen of one prompt and its answer."""

    def __init__(
        self, family: Family, hidden: Hidden, number: int, features: Features | None
    ) -> None:
        self._family, self._hidden, self._number = family, hidden, number
        self._features = features
        self._seen = 0

    def __call__(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        if not self._seen and states.shape[1] != self._hidden.length:
            raise NoOracle("the decoder does not read the prompt in one piece")
        prompt = self._seen == 0
        self._seen += states.shape[1]
        if prompt and self._features is not None:
            states = self._features.put_into(states, self._hidden)
            args, kwargs = with_states(args, kwargs, states)
        if "attention_mask" not in kwargs and len(args) > 1:
            raise NoOracle("decoder layers take their mask by place, not by name")
        name = _backend(self._family, module)
        mask = self._mask(kwargs.get("attention_mask"), states, module, name, prompt)
        return args, {**kwargs, "attention_mask": mask}

    def _mask(self, given: Any, states: Tensor, module: Any, backend: str, prompt: bool) -> Tensor:
        device = states.device
        seen = self._seen_keys(prompt).to(device)
        own = given
        if given is None and "flash" in backend:
            own = self._valid_keys().to(device).long()
        elif given is None:
            own = _own_mask(module, self._valid_keys().to(device), states.shape[1])
            if backend == "eager":
                own = _as_float(own, states.dtype)
        if not isinstance(own, Tensor):
            raise NoOracle(f"masks of {backend} are no tensors ({type(own).__name__})")
        own = own.to(device)
        if own.ndim == 2:
            return own * _columns(seen, own.shape[1]).to(own.dtype)
        if own.ndim != 4:
            raise NoOracle(f"decoder layers get a mask with {own.ndim} dimensions")
        return hide(own, seen)

    def _seen_keys(self, prompt: bool) -> Tensor:
        """Bool ``[B, K]``: keys of all tokens so far that are not hidden."""
        hidden = self._hidden.prompt[self._number]
        if not prompt:
            hidden = hidden | self._hidden.later[self._number]
        return _extended(~hidden, self._seen)

    def _valid_keys(self) -> Tensor:
        return _extended(self._hidden.valid, self._seen)


def hide(mask: Tensor, seen: Tensor) -> Tensor:
    """The model's own ``mask [B|1, H|1, Q, K]`` (bool, or added to logits) without the keys that
    are not ``seen`` (bool ``[B, total]``). A hidden query still sees itself, which no other token
    notices: without any key its state would be NaN."""
    queries, keys = mask.shape[-2:]
    total = seen.shape[1]
    first = total - min(keys, total)  # a window holds the last keys only
    rows = torch.arange(total - queries, total, device=mask.device)[:, None]
    itself = rows == torch.arange(first, first + keys, device=mask.device)
    allowed = _columns(seen, keys)[:, None, None] | itself
    if mask.dtype == torch.bool:
        return mask & allowed
    lowest = torch.tensor(torch.finfo(mask.dtype).min, dtype=mask.dtype, device=mask.device)
    return torch.where(allowed, mask, lowest)


def _own_mask(layer: Any, valid: Tensor, queries: int) -> Tensor:
    """Bool ``[B, 1, Q, K]``: what no mask at all stands for."""
    keys = valid.shape[1]
    at = torch.arange(keys - queries, keys, device=valid.device)[:, None]
    causal = getattr(getattr(layer, "self_attn", None), "is_causal", True)
    columns = torch.arange(keys, device=valid.device)
    order = columns <= at if causal else torch.ones_like(columns <= at)
    return (order & (valid[:, None] | (columns == at)))[:, None]


def _as_float(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
        ~mask, torch.finfo(dtype).min
    )


def _columns(seen: Tensor, keys: int) -> Tensor:
    """Bool ``[B, keys]``: the last columns (a window), or, of a cache that is longer than what it
    holds, all of them with nothing hidden behind."""
    total = seen.shape[1]
    return seen[:, total - keys :] if keys <= total else _extended(seen, keys)


def _extended(there: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(there, (0, size - there.shape[1]), value=True)


def _backend(family: Family, layer: Any) -> str:
    attention = getattr(layer, "self_attn", None)
    config = getattr(attention, "config", None) or family.text_config
    return str(config._attn_implementation)
