"""Where the modules of a model are, whatever its prompt."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.families.decoders import (
    check_decoder,
    longest_prompt,
    reading_layers,
    recurrent_layers,
)

_LAYERS = ("layers", "h")
_NORMS = ("norm", "final_layernorm", "ln_f")
_ATTENTION = re.compile("attention|attn", re.IGNORECASE)
_SIZES = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "depth",
    "num_attention_heads",
    "num_key_value_heads",
)
_PROBES = 64  # numbers of a weight in a model's fingerprint


class Modules(ABC):
    """The modules of a model of one family: core, tower, projector, decoder layers."""

    def __init__(self, top: Any) -> None:
        # Modules of a transformers model are reached by attributes that torch cannot type.
        self.top: Any = top
        self.config: Any = top.config

    @property
    def core(self) -> Any:
        """The module whose forward receives ``input_ids`` and puts image features in place."""
        return self.top.model

    @property
    def language_model(self) -> Any:
        """The decoder stack that ``core`` calls with ``inputs_embeds``."""
        return self.core.language_model

    @property
    @abstractmethod
    def tower(self) -> nn.Module:
        """The vision encoder."""

    @property
    def towers(self) -> Mapping[str | None, nn.Module]:
        """The vision encoders by kind of visual input; under None, one that serves all kinds."""
        return {None: self.tower}

    @property
    @abstractmethod
    def projector(self) -> nn.Module:
        """The module that turns tower features into language-model embeddings."""

    @property
    def layers(self) -> Any:
        """The decoder layers that run, an ``nn.ModuleList`` or a part of one.

        Raises:
            PrunusError: the language model is built in another way.
        """
        model, found = self.language_model, None
        for name in _LAYERS:
            found = getattr(model, name, None)
            if found is not None:
                break
        if not isinstance(found, nn.ModuleList):
            raise PrunusError(
                f"the language model {type(model).__name__} has no list of decoder layers named "
                f"{' or '.join(_LAYERS)}: it is not supported"
            )
        count = getattr(model.config, "num_hidden_layers", len(found))
        return found if count >= len(found) else found[:count]

    def check_decoder(self, untested: bool = False) -> None:
        """Raise PrunusError unless pruning is proved right on this language model, or it was never
        tried and that is all right (``untested``)."""
        check_decoder(self.language_model, self.text_config, self.layers, untested)

    @property
    def recurrent(self) -> frozenset[int]:
        """Decoder layers that have a state, into which they read one token after the other, instead
        of keys and values (linear attention)."""
        return recurrent_layers(self.text_config, len(self.layers))

    @property
    def longest(self) -> int | None:
        """Tokens of a prompt, padding included, behind which decoder layers would do something else
        on fewer tokens; None: there is no such number."""
        return longest_prompt(self.text_config)

    @property
    def readers(self) -> dict[int, int]:
        """Decoder layers that have no keys and values of their own, and for each the earlier layer
        whose keys it reads."""
        return reading_layers(self.text_config, len(self.layers))

    def attention(self, number: int) -> list[Any]:
        """The modules in decoder layer ``number`` that look up an attention function by their
        configuration."""
        return attention_modules(self.layers[number])

    @property
    def text_config(self) -> Any:
        """Configuration of the language model."""
        return self.config.get_text_config()

    @property
    def depth(self) -> int:
        """Decoder layers that run."""
        return len(self.layers)

    def last_norm(self, states: Tensor) -> Tensor:
        """``states [..., D]`` behind the language model's last norm.

        Raises:
            PrunusError: it is not where it is looked for.
        """
        model = self.language_model
        norm = next((getattr(model, name) for name in _NORMS if hasattr(model, name)), None)
        if not isinstance(norm, nn.Module):
            raise PrunusError(
                f"the language model {type(model).__name__} has no last norm named "
                f"{', '.join(_NORMS)}: choose a method that does not look behind it"
            )
        found: Tensor = norm(states)
        return found

    def project(self, features: Tensor) -> Tensor:
        """Tower features ``[n, D]`` as embeddings of the language model, ``[n, D']``; for families
        that have one row per token before the projector (:attr:`reads_tower`)."""
        found: Tensor = self.projector(features[None])
        return found[0]

    @property
    def reads_tower(self) -> bool:
        """Where a learned selector reads visual features: True, what enters the projector (one row
        of ``[images, tokens, D]`` per image); False, what the projector leaves in the prompt."""
        return True

    @property
    def feature_width(self) -> int:
        """Channels of the features that a learned selector reads."""
        return int(self.config.vision_config.hidden_size) if self.reads_tower else self.text_width

    @property
    def text_width(self) -> int:
        """Channels of a word embedding."""
        return int(self.text_config.hidden_size)

    @property
    def architecture(self) -> dict[str, str | int]:
        """Kind and sizes of the model, its language model and its tower, whatever their weights."""
        parts = {
            "model": self.config,
            "decoder": self.text_config,
            "tower": getattr(self.config, "vision_config", None),
        }
        found = {}
        for part, config in parts.items():
            for name in ("model_type",) if part == "model" else _SIZES:
                value = getattr(config, name, None)
                if isinstance(value, str | int):
                    found[f"{part}.{name}"] = value
        return found

    def fingerprint(self) -> Tensor:
        """Float32 ``[2, 64]`` that tells models apart: numbers spread over the first weight of the
        tower and over the word embeddings."""
        large = (w for w in self.tower.parameters() if w.ndim > 1 and w.numel() >= _PROBES)
        first = next(large)  # a CLS token may stand before it
        words: Tensor = self.top.get_input_embeddings().weight
        rows = []
        for weight in (first, words):
            flat = weight.detach().flatten()
            step = max(flat.numel() // _PROBES, 1)
            rows.append(flat[::step][:_PROBES].float().cpu())
        return torch.stack(rows)


def attention_modules(inside: nn.Module) -> list[Any]:
    """Modules in ``inside`` that look up an attention function by their configuration; told by the
    names of their classes, because transformers has no base class for them."""
    return [
        module
        for module in inside.modules()
        if "config" in module.__dict__ and _ATTENTION.search(type(module).__name__)
    ]
