"""The first decoder layer, run on some tokens before the language model itself does."""

from __future__ import annotations

import copy
from collections import OrderedDict
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from prunus.engine.lent import loan_of
from prunus.engine.masks import FLASH
from prunus.errors import PrunusError
from prunus.families import Family
from prunus.method.signals import Passed


def check_ahead(family: Family, name: str) -> None:
    """Raise PrunusError where the first decoder layer of a model of ``family``, run on an image
    alone, would not do what it does in a prompt that begins with that image; ``name`` is the method
    that wants it."""
    reason = ""
    if family.along:
        reason = f"{family.name} gives every token something of its own in each layer "
        reason += f"({', '.join(family.along)})"
    elif family.has_side_inputs:
        reason = f"{family.name} gives the language model more of an image than its embeddings"
    elif not family.one_way:
        reason = f"visual tokens of {family.name} see what stands behind them in the prompt"
    if reason:
        raise PrunusError(
            f"{name} runs the first decoder layer ahead of the language model, on an image alone, "
            f"but {reason}: choose another method (or variant)"
        )


@torch.no_grad()
def first_layer(family: Family, states: Tensor, ids: Tensor) -> Passed:
    """What the first decoder layer makes of ``states [G, n, D]``, one prompt for each of the G, at
    positions ``ids`` (int64 ``[A, G, n]``, a row for each of A axes).

    Raises:
        PrunusError: the layer's weights are elsewhere, or it cannot be run alone.
    """
    model, layer = _alone(family)
    weights = [*layer.parameters()]
    if any(one.is_meta for one in weights):
        raise PrunusError(
            "the weights of the first decoder layer are offloaded, so that it cannot be run ahead "
            "of the language model: keep that layer on a device, or choose another method"
        )
    line = len(ids) == 1
    flash = family.text_config._attn_implementation in FLASH
    if flash and line and bool((ids.diff() != 1).any()):
        raise PrunusError(
            "positions of an image's tokens have gaps, which FlashAttention reads as several "
            "prompts in one row: call model.set_attn_implementation('sdpa') to run the first "
            "decoder layer ahead"
        )
    found: list[Any] = []
    layer.register_forward_pre_hook(
        lambda module, args, kwargs: found.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    layer.register_forward_hook(lambda module, args, output: found.append(output))
    place = weights[0].device
    # The mask hides nothing. Without one, positions with gaps would be read as packed prompts.
    mask = torch.ones(states.shape[:2], dtype=torch.long, device=place)
    ids = ids.to(place)
    model(
        inputs_embeds=states.to(place),
        attention_mask=mask,
        position_ids=ids[0] if line else ids,
        use_cache=False,
    )
    enter, leave = found
    leave = leave[0] if isinstance(leave, tuple) else leave
    return Passed(enter.to(states.device), leave.to(states.device))


def _alone(family: Family) -> tuple[Any, nn.Module]:
    """The language model with its first layer alone, and that layer: with the very same weights."""
    model: Any = family.language_model
    first = family.layers[0]
    layer = bare(first)
    parts: dict[str, nn.Module | None] = {}
    for name, child in model._modules.items():
        if isinstance(child, nn.ModuleList) and len(child) and child[0] is first:
            parts[name] = nn.ModuleList([layer])
        elif child is None or isinstance(child, nn.Embedding | nn.ModuleList):
            parts[name] = child  # words, which are not looked up
        else:
            parts[name] = bare(child)
    twin = _twin(model)
    vars(twin)["_modules"] = parts
    return twin, layer


def bare(module: nn.Module) -> nn.Module:
    """``module`` and all in it, with the same weights: in evaluation mode, and without hooks or
    lent configurations of anybody, so that nothing notices that it runs."""
    twin: nn.Module = _twin(module)
    vars(twin)["_modules"] = {
        name: None if child is None else bare(child) for name, child in module._modules.items()
    }
    return twin


def _twin(module: nn.Module) -> Any:
    twin: Any = copy.copy(module)
    own = vars(twin)
    for name, value in own.items():
        if name.startswith(("_forward", "_backward")) and isinstance(value, dict):
            own[name] = OrderedDict()
    own["training"] = False
    loan = loan_of(own.get("config"))
    if loan is not None:
        own["config"] = loan.original
    if "_hf_hook" in own:  # accelerate's, which runs the module that it was put on
        own.pop("forward", None)
    elif isinstance(own.get("forward"), MethodType):
        own["forward"] = MethodType(own["forward"].__func__, twin)
    return twin
