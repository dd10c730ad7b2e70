"""From questions to model inputs: prompts, batches of equal length, features computed once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from prunus.families import Family, family_of

#: From this size on, a batch ends where prompts get longer: without padding no mask is needed,
#: and attention stays in its fastest kernel.
_ENOUGH = 8


@dataclass(frozen=True)
class Encoded:
    """Prompt of one question: token ids ``[t]`` with an image and ``[s]`` without one, and what
    else the processor says of each of the ``t`` (its modality), ``[t]`` by name."""

    query: int
    ids: Tensor
    blind_ids: Tensor
    per_token: Mapping[str, Tensor] = field(default_factory=dict)


def build_prompt(processor: Any, question: str, image: bool) -> str:
    """The processor's chat template, or LLaVA-1.5's own form where it has none."""
    token = getattr(processor, "image_token", None) or "<image>"
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}] * image + [{"type": "text", "text": question}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return str(text)
    return f"USER: {token}\n{question} ASSISTANT:" if image else f"USER: {question} ASSISTANT:"


def encode(processor: Any, number: int, question: str, image: Image.Image) -> tuple[Encoded, Any]:
    """Encode question ``number`` as the processor wants it, and the processor's other outputs."""
    prompt = build_prompt(processor, question, image=True)
    full = dict(processor(images=[image], text=prompt, return_tensors="pt"))
    ids = full.pop("input_ids")[0]
    full.pop("attention_mask", None)
    per_token = {key: full.pop(key)[0] for key in list(full) if key.endswith("token_type_ids")}
    tokenizer = getattr(processor, "tokenizer", processor)
    blind = tokenizer(build_prompt(processor, question, image=False), return_tensors="pt")
    return Encoded(number, ids, blind["input_ids"][0], per_token), full


def in_batches(encoded: Sequence[Encoded], size: int) -> Iterator[list[Encoded]]:
    """Batches of at most ``size``, by length; most of them need no padding."""
    batch: list[Encoded] = []
    for one in sorted(encoded, key=lambda e: (len(e.ids), e.query)):
        longer = bool(batch) and len(one.ids) != len(batch[-1].ids) and len(batch) >= _ENOUGH
        if len(batch) == size or longer:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def left_padded(
    rows: Sequence[Tensor], pad: int, per_token: Sequence[Mapping[str, Tensor]] = ()
) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask``, ``[b, t]`` int64, and what else is known ``per_token``
    of each row, with zeros where there is padding."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, longest - len(row) :] = row
        mask[at, longest - len(row) :] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    for at, known in enumerate(per_token):
        for name, values in known.items():
            table = inputs.setdefault(name, torch.zeros(ids.shape, dtype=values.dtype))
            table[at, longest - len(values) :] = values
    return inputs


@dataclass(frozen=True)
class Prepared:
    """One image: what the processor made of it, and its features ``[n, D]`` where they were
    computed beforehand."""

    pixels: dict[str, Tensor]
    features: Tensor | None


class Vision:
    """Image inputs of ``generate``, where possible from features computed once per image.

    For methods behind the tower its output is the same. Where one acts inside it, or the model
    cannot be given features (transformers before ``mm_encoder_outputs``, images of more than one
    grid), pixels are passed and the tower runs for every cell.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.family: Family = family_of(model)
        forward = inspect.signature(type(self.family.core).forward).parameters
        one_grid = self.family.default_grid() is not None
        self.once = one_grid and "mm_encoder_outputs" in forward

    @torch.no_grad()
    def prepare(self, pixels: Sequence[dict[str, Tensor]]) -> list[Prepared]:
        """What :meth:`inputs` wants for each image."""
        if not self.once:
            return [Prepared(one, None) for one in pixels]
        model, found = self._model, []
        for one in pixels:
            values = one["pixel_values"].to(model.device, model.dtype)
            features = self.family.core.get_image_features(values).pooler_output[0]
            found.append(Prepared(one, features))
        return found

    def inputs(self, prepared: Sequence[Prepared], in_tower: bool = False) -> dict[str, Any]:
        """Arguments of ``generate`` for one image per row: features, or pixels where a method acts
        ``in_tower``."""
        features = [one.features for one in prepared if one.features is not None]
        if not in_tower and len(features) == len(prepared):
            return {
                "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)}
            }
        model = self._model
        keys = prepared[0].pixels
        merged = {key: torch.cat([one.pixels[key] for one in prepared]) for key in keys}
        return {
            key: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for key, value in merged.items()
        }
