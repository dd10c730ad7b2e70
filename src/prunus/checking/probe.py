"""What a model is asked in a check: two prompts with an image or a video each, alone and as one
batch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from prunus.errors import PrunusError
from prunus.families import Family
from prunus.inference.batches import IMAGE_SIZES, joined
from prunus.inference.inputs import find_spots, placed, process
from prunus.inference.prompts import render
from prunus.tasks.sample import load_sample
from prunus.tasks.sets import Clip

Inputs = dict[str, Tensor]

#: One short and one longer, so that the batch has padding.
QUESTIONS = (
    "how many objects are there?",
    "is there a red circle in the picture? how many objects are there?",
)
#: Different shapes (width, height), where a model looks at images as they are.
SIZES = ((224, 168), (168, 224))
FRAMES = 8  # of a video: a window that moves over the picture


@dataclass(frozen=True)
class Probe:
    """Prompts of one model.

    Attributes:
        rows: each prompt by itself, without padding: what the model's ``forward`` takes.
        batch: all of them, left-padded.
        valid: bool ``[B, L]``, where the batch has no padding.
        spots: ``[row][image]``, int64 ``[N]``: positions in the batch of the visual tokens that
            have a cell in the image's grid; in the order of the prompt.
        visual: bool ``[B, L]``: these and what else an image brings (a CLS token, separators).
        answer: token ids that are generated, whatever the model would say.
    """

    rows: Sequence[Inputs]
    batch: Inputs
    valid: Tensor
    spots: Sequence[Sequence[Tensor]]
    visual: Tensor
    answer: Sequence[int]

    @property
    def least(self) -> int:
        """Visual tokens of the smallest image."""
        return min(len(spot) for row in self.spots for spot in row)


def from_processor(family: Family, processor: Any, steps: int, video: bool = False) -> Probe:
    """Prompts about a drawn picture, or short videos of it, as the model's own processor and chat
    template make them."""
    drawing, _ = load_sample()
    rows = []
    for question, size in zip(QUESTIONS, SIZES, strict=True):
        prompt = render(processor, question, ["video" if video else "image"])
        picture = drawing.resize(size)
        shown = {"videos": [_moving(drawing, size)]} if video else {"images": [picture]}
        rows.append(process(processor, prompt, **shown, family=family))
    return from_rows(family, rows, steps, _pad_token(family, processor))


def _moving(drawing: Image.Image, size: tuple[int, int]) -> Clip:
    """A window over half of the ``drawing`` that moves from left to right, two frames a second."""
    width, height = drawing.size
    starts = [number * width // 2 // (FRAMES - 1) for number in range(FRAMES)]
    windows = (drawing.crop((start, 0, start + width // 2, height)) for start in starts)
    return Clip(tuple(window.resize(size) for window in windows), 2.0)


def from_rows(
    family: Family, rows: Sequence[Mapping[str, Tensor]], steps: int, pad: int | None = None
) -> Probe:
    """A probe of given prompts: model inputs of one sample each, without padding.

    Raises:
        PrunusError: fewer than two, not of one sample each, or one without an image.
    """
    if len(rows) < 2:
        raise PrunusError(f"{len(rows)} prompts: give at least two, to make a batch of")
    top = family.top
    given = [placed(row, top.device, top.dtype) for row in rows]
    for number, row in enumerate(given):
        ids = row.get("input_ids")
        if ids is None or ids.ndim != 2 or len(ids) != 1:
            raise PrunusError(f"prompt {number} has no input_ids of shape [1, length]")
        row.setdefault("attention_mask", torch.ones_like(ids))
        if not bool(row["attention_mask"].all()):
            raise PrunusError(f"prompt {number} has padding: give each prompt by itself, without")
    in_batch = [family.behind(row, given[:number]) for number, row in enumerate(given)]
    batch = left_padded(in_batch, _pad_token(family, None) if pad is None else pad)
    spots = [[spot.positions for spot in row] for row in find_spots(family, batch)]
    if not all(spots):
        raise PrunusError("a prompt has no image: give prompts with one image or more each")
    visual = _placeholders(family, batch["input_ids"])
    answer = _answer(family, given[-1]["input_ids"], steps)
    return Probe(given, batch, batch["attention_mask"].bool(), spots, visual, answer)


def left_padded(rows: Sequence[Inputs], pad: int) -> Inputs:
    """One batch of prompts of one sample each: what has one value per token is padded on the left,
    all else (pixels, grids) is put behind each other."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    batch: Inputs = {}
    for name in dict.fromkeys(itertools.chain(*rows)):
        own = [row for row in rows if name in row]
        parts = [row[name] for row in own]
        if all(row[name].shape[:2] == row["input_ids"].shape for row in own):
            fill = pad if name == "input_ids" else 0
            parts = [F.pad(part, (longest - part.shape[1], 0), value=fill) for part in parts]
        batch[name] = joined(parts, IMAGE_SIZES in rows[0])
    return batch


def _pad_token(family: Family, processor: Any) -> int:
    tokenizer = getattr(processor, "tokenizer", None)
    for holder in (tokenizer, family.top.generation_config, family.text_config):
        pad = getattr(holder, "pad_token_id", None)
        if isinstance(pad, int) and pad >= 0:
            return pad
    return 0


def _answer(family: Family, ids: Tensor, steps: int) -> list[int]:
    """``steps`` tokens of the prompt's own text: no placeholder, nothing that ends an answer."""
    ends = family.top.generation_config.eos_token_id
    banned = set(ends if isinstance(ends, list) else [ends])
    text = [token for token in ids[~_placeholders(family, ids)].tolist() if token not in banned]
    return list(itertools.islice(itertools.cycle(reversed(text)), steps))


def _placeholders(family: Family, ids: Tensor) -> Tensor:
    return torch.stack(list(family.placeholders(ids, None).values())).any(0)
