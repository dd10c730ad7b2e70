"""What a cut must equal, whatever the decoder: the unmodified model on all tokens, of which the
dropped ones are hidden in the masks that the model itself hands to its layers.

Nothing here uses the engine, and no mask is made here except where the model makes none (None,
which means what the attention module's ``is_causal`` says). So windows, chunks, packed rows and
masks given by the caller stay what the model makes of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.decoders import layers_of


@contextmanager
def hidden(model: Any, visible: Sequence[Tensor]) -> Iterator[None]:
    """``model`` (a LLaVA) with layer i seeing only what bool ``visible[i] [B, L, L]`` leaves of its
    own mask. For calls on the whole sequence, without a cache."""
    handles = []
    try:
        for layer, mask in zip(layers_of(model), visible, strict=True):
            hook = _hider(layer, mask)
            handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def masked_logits(model: Any, call: dict[str, Any], visible: Sequence[Tensor]) -> Tensor:
    """Logits ``[B, L, V]`` of ``model(**call)`` under :func:`hidden`."""
    with torch.no_grad(), hidden(model, visible):
        logits: Tensor = model(**call, use_cache=False).logits
    return logits


def _hider(layer: nn.Module, visible: Tensor) -> Any:
    place = list(inspect.signature(layer.forward).parameters).index("attention_mask")

    def before(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if len(args) > place:  # given by position
            mask = both(args[place], layer, visible)
            return (*args[:place], mask, *args[place + 1 :]), kwargs
        return args, {**kwargs, "attention_mask": both(kwargs["attention_mask"], layer, visible)}

    return before


def both(own: Any, layer: nn.Module, visible: Tensor) -> Tensor:
    """The ``own`` mask of a decoder layer, without the pairs that bool ``visible [B, L, L]`` hides.

    Raises:
        TypeError: a mask that is none of None, bool 4-D and float 4-D; a layer that takes none.
    """
    if own is None:
        said = [m.is_causal for m in layer.modules() if hasattr(m, "is_causal")]
        if not said:
            raise TypeError(f"no attention with a mask in {type(layer).__name__}")
        causal = said[0]
        return (visible.tril() if causal else visible)[:, None]
    if not isinstance(own, Tensor) or own.ndim != 4:
        raise TypeError(f"a mask of an unknown kind: {type(own).__name__}")
    if own.dtype == torch.bool:
        return own & visible[:, None]
    return own.expand(len(visible), -1, -1, -1).masked_fill(
        ~visible[:, None], torch.finfo(own.dtype).min
    )
