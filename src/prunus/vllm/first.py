"""The first decoder layer as transformers builds it, for methods that run it ahead of vLLM's own
language model; its weights, out of the same checkpoint, are there a second time."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from prunus.errors import PrunusError

#: What checkpoints call what is in the first decoder layer: of transformers 5, and before.
_NAMES = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.0\.(.+)")
#: Where it is in a core.
WHERE = "language_model.layers.0."


def first_alone(model: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A language model like ``model`` with its first layer, and nothing in the others; it has no
    words."""
    own = model.config
    small = copy.deepcopy(own)
    small.num_hidden_layers, small.vocab_size, small.pad_token_id = 1, 1, None
    kinds = getattr(own, "layer_types", None)
    if kinds is not None:
        small.layer_types = kinds[:1]
    rope = dict(getattr(own, "rope_parameters", None) or {})
    if rope.pop("mrope_interleaved", False):
        axes = axes_of(own.rope_parameters, sum(rope["mrope_section"]))
        # transformers' classes that know sections alone take a channel of each axis in turn.
        rope["mrope_section"] = [int(axis == turn) for axis in axes for turn in range(3)]
        small.rope_parameters = rope
    with torch.device(device):
        made = type(model)._from_config(small, dtype=dtype)
    made.embed_tokens = made.norm = nn.Identity()
    made.layers.extend(nn.Identity() for _ in range(own.num_hidden_layers - 1))
    small.num_hidden_layers = own.num_hidden_layers
    if kinds is not None:
        small.layer_types = kinds
    if "mrope_section" in rope:
        check_axes(made, axes_of(own.rope_parameters, sum(own.rope_parameters["mrope_section"])))
    return made


def axes_of(rope: Mapping[str, Any], channels: int) -> list[int]:
    """By which of its three positions each channel of a token is turned, as vLLM reads it."""
    sections = rope["mrope_section"]
    if not rope.get("mrope_interleaved"):
        return [axis for axis, count in enumerate(sections) for _ in range(count)][:channels]
    turns = ((channel, channel % 3) for channel in range(channels))
    return [axis if axis and channel < 3 * sections[axis] else 0 for channel, axis in turns]


def check_axes(model: Any, axes: Sequence[int]) -> None:
    """Raise PrunusError unless transformers' ``model`` turns channels by these ``axes``."""
    rotary = model.rotary_emb
    inverse = rotary.inv_freq.float()
    ids = torch.arange(1, 4, device=inverse.device)[:, None, None]  # of one token
    like = torch.zeros(1, dtype=torch.float32, device=inverse.device)
    cos, _ = rotary(like, ids)
    wanted = ((torch.tensor(axes, device=inverse.device) + 1) * inverse[: len(axes)]).cos()
    own = cos.flatten()[: len(axes)] / rotary.attention_scaling
    if len(axes) != len(inverse) or not torch.allclose(own, wanted, atol=1e-4):
        raise PrunusError(
            f"transformers' {type(model).__name__} turns channels by other positions than vLLM's "
            "(rope_parameters: mrope_section, mrope_interleaved), so that its first layer cannot "
            "be run for vLLM: choose a method (or variant) that needs none"
        )


def own_name(name: str) -> str | None:
    """What a weight of a checkpoint is called in such a core, if it is of the first layer."""
    found = _NAMES.fullmatch(name)
    return None if found is None else WHERE + found[1]
