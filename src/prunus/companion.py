"""A CLIP model beside the model: what it says of the tower's features and of the question."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError, PrunusFileError, brief, shown
from prunus.io.broken import broken
from prunus.method.signals import Embedded
from prunus.method.view import Facts

_PROBES = 64  # numbers of a weight that are compared
_OPEN = (
    "it has to be the CLIP that the model's vision tower was taken from (LLaVA-1.5: "
    "openai/clip-vit-large-patch14-336)"
)


class Clip(NamedTuple):
    """A CLIP in memory, float32, its vision tower left out but for the last norm."""

    model: Any
    tokenizer: Any
    norm: nn.Module
    longest: int  # tokens of one text

    def __repr__(self) -> str:
        return "<a CLIP in memory>"

    def embed(self, features: Tensor, questions: Sequence[str]) -> Embedded:
        """See :class:`~prunus.method.signals.Companion`. A question that is longer than the text
        tower reads comes in parts."""
        self.model.to(features.device)
        self.norm.to(features.device)
        parts = {text: self._parts(text) for text in dict.fromkeys(questions)}
        every = [part for own in parts.values() for part in own]
        width = max(map(len, every))
        ids = torch.zeros(len(every), width, dtype=torch.long)
        for row, part in zip(ids, every, strict=True):  # the tower is causal: what follows is mute
            row[: len(part)] = torch.tensor(part)
        with torch.no_grad():
            found = self.model.get_text_features(ids.to(features.device)).pooler_output
            visual = self.model.visual_projection(self.norm(features.float()))
        embedded = dict(zip(parts, found.split([len(own) for own in parts.values()]), strict=True))
        rows = [embedded[text] for text in questions]
        text = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        counts = torch.tensor([len(row) for row in rows], device=text.device)
        there = torch.arange(text.shape[1], device=text.device) < counts[:, None]
        return Embedded(visual, text, there, self._macs(features, ids))

    def _parts(self, text: str) -> list[list[int]]:
        """Token ids of a text, start and end signs included, in parts."""
        ids: list[int] = self.tokenizer(text, verbose=False)["input_ids"]
        return [ids[at : at + self.longest] for at in range(0, len(ids), self.longest)]

    def _macs(self, features: Tensor, ids: Tensor) -> float:
        """Matrix products of the text tower and the visual projection."""
        text, config = self.model.text_model, self.model.config.text_config
        weights = sum(one.weight.numel() for one in text.modules() if isinstance(one, nn.Linear))
        attention = 2 * ids.shape[1] * config.hidden_size * config.num_hidden_layers
        visual = features.numel() * self.model.visual_projection.out_features
        last = len(ids) * self.model.text_projection.weight.numel()
        return float(ids.numel() * (weights + attention) + last + visual)


def load_clip(name: str | Path, model: Facts) -> Clip:
    """The CLIP called ``name`` (a folder or Hugging Face id), whose vision tower is that of
    ``model``.

    A tower whose weights were trained further (LLaVA-NeXT's) is told by a warning.

    Raises:
        PrunusError: none there, another kind of model, or one of another tower; a model whose
            tower's features cannot be read.
    """
    from transformers import AutoConfig, CLIPModel, CLIPTokenizer

    text = os.path.expanduser(str(name))
    if not model.reads_tower:
        raise PrunusError(
            "companion: a CLIP reads what enters the projector, token by token, and this family "
            "has no such rows (its tokens are made behind it): leave the companion off"
        )
    with broken(f"the companion {shown(str(name))}"):
        try:
            config = AutoConfig.from_pretrained(text)
        except (OSError, ValueError) as error:
            raise PrunusFileError(
                f"companion={shown(str(name))}: no model there (no such folder; not in the Hugging "
                f"Face cache or hub): {_OPEN}: {brief(error)}"
            ) from error
        if config.model_type != "clip":
            raise PrunusError(
                f"companion={shown(str(name))} is a {config.model_type!r} model: {_OPEN}. (SigLIP "
                "has a space for whole images alone, not for single patches)"
            )
        found, info = CLIPModel.from_pretrained(text, dtype=torch.float32, output_loading_info=True)
        tokenizer = CLIPTokenizer.from_pretrained(text)
    if missing := sorted(info["missing_keys"]):
        raise PrunusFileError(
            f"companion={shown(str(name))}: {len(missing)} weights are missing ({missing[0]}, ...)"
        )
    _check(shown(str(name)), found.vision_model, model)
    norm: nn.Module = found.vision_model.post_layernorm
    found.vision_model = nn.Identity()  # the model's own tower has seen the image already
    longest = int(found.config.text_config.max_position_embeddings)
    return Clip(found.eval().requires_grad_(False), tokenizer, norm, longest)


def _check(name: str, tower: nn.Module, model: Facts) -> None:
    """Raise PrunusError unless ``tower`` is built as the model's; warn of other weights."""
    own, other = _weights(model.tower), _weights(tower)
    width = other["post_layernorm.weight"].shape[0]
    if {key: one.shape for key, one in own.items()} != {
        key: one.shape for key, one in other.items()
    }:
        raise PrunusError(
            f"companion={name}: its vision tower ({width} channels, {len(other)} weights) is not "
            f"built as the model's ({model.feature_width} channels, {len(own)} weights): {_OPEN}"
        )
    if model.feature_width != width:
        raise PrunusError(
            f"companion={name}: it reads {width} channels, and the projector of this model "
            f"{model.feature_width} (features of several blocks?): leave the companion off"
        )
    if not all(_alike(one, other[key]) for key, one in own.items()):
        warnings.warn(
            f"prunus: the vision tower of the companion {name} has other weights than the model's "
            "(trained further?): relevance is read in a space that has moved",
            stacklevel=2,
        )


def _weights(tower: nn.Module) -> dict[str, Tensor]:
    return {key.removeprefix("vision_model."): one for key, one in tower.state_dict().items()}


def _shapes(weights: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {key: one.shape for key, one in weights.items()}


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether some numbers of two weights are equal, but for the rounding of their dtypes."""
    if one.is_meta or not one.is_floating_point():
        return True
    step = max(one.numel() // _PROBES, 1)
    few, more = (weight.flatten()[::step].float().cpu() for weight in (one, other))
    return torch.allclose(few, more, rtol=2e-2, atol=1e-3)
