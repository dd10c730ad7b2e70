"""Rotary tables for positions that the model did not ask for: made by the model's own module."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families import Family


def rotary_module(family: Family, what: str = "positions cannot be closed up") -> nn.Module:
    """The language model's rotary embedding, called with states and position ids; ``what`` is not
    possible without one.

    Raises:
        PrunusError: it has none, or several.
    """
    found: list[nn.Module] = [
        module
        for module in family.language_model.children()
        if "rotary" in type(module).__name__.lower()
    ]
    if len(found) != 1:
        raise PrunusError(
            f"{what} inside {type(family.language_model).__name__}, which has {len(found)} rotary "
            "embeddings of its own: choose a method (or variant) that keeps positions, or one that "
            "acts before the language model"
        )
    return found[0]


def check_rotary(
    family: Family, states: Tensor, ids: Tensor | None, given: Any, present: Tensor
) -> None:
    """Raise PrunusError unless the module makes of ``ids`` (int64 ``[B|1, L]``; None: 0, 1, ...)
    the tables that the layers are ``given`` for the whole prompt, and they count the tokens that
    are ``present`` (bool ``[B, L]``) one by one."""
    length = given[0].shape[-2] if isinstance(given, tuple) else -1
    if ids is None:
        ids = torch.arange(length, device=states.device)[None]
    elif ids.ndim == 2:
        follows = present[:, 1:] & present[:, :-1]
        if bool(((ids.diff().to(present.device) != 1) & follows).any()):
            raise PrunusError(
                "position_ids jump within a row (several prompts in it, or a count of your own), "
                "so that positions cannot be closed up inside the language model: give positions "
                "that count tokens one by one, or choose a method (or variant) that keeps them"
            )
    made = tables(rotary_module(family), states, ids)
    if not isinstance(given, tuple) or not all(
        own.shape == other.shape and torch.equal(own, other)
        for own, other in zip(made, given, strict=True)
    ):
        raise PrunusError(
            f"the rotary embedding of {type(family.language_model).__name__} is called in a way "
            "that is not known here, so that positions cannot be closed up inside it: choose a "
            "method (or variant) that keeps positions"
        )


def tables(module: nn.Module, states: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
    """What ``module`` makes of position ids int64 ``[B, Q]``."""
    with torch.no_grad():
        found: tuple[Tensor, ...] = module(states, ids)
    return found


def angles(family: Family, layer: int, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines float32 ``[A, B, L, F]`` of position ids int64 ``[A, B, L]``, each axis by
    itself, as decoder ``layer`` has them.

    Raises:
        PrunusError: the model turns its tokens in another way.
    """
    module = rotary_module(family, "where tokens are turned to cannot be asked")
    more = {}
    if "layer_type" in inspect.signature(module.forward).parameters:
        more["layer_type"] = family.text_config.layer_types[layer]
    like = torch.zeros(1, device=ids.device, dtype=torch.float32)
    with torch.no_grad():
        found = [module(like, axis, **more) for axis in ids]
    wanted = ids.shape[1:]
    for one in found:
        if not isinstance(one, tuple) or any(part.shape[:-1] != wanted for part in one):
            raise PrunusError(
                f"the rotary embedding of {type(family.language_model).__name__} gives no cosines "
                "and sines with a row for every token: choose a method that does not ask where "
                "tokens are turned to"
            )
    cos, sin = (torch.stack(parts) for parts in zip(*found, strict=True))
    return cos, sin
