"""What is timed: a model, and prompts for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from prunus.bench.build import build, prompt
from prunus.bench.decoding import decoder, encoded, opened
from prunus.bench.shapes import shape_of
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.inference.inputs import placed, process
from prunus.inference.prompts import render
from prunus.loading import load

#: What a real model is asked about its picture, where nothing is said.
QUESTION = "Describe this picture in detail."


@dataclass(frozen=True)
class Workload:
    """A model, and one prompt for it.

    Attributes:
        name: of the shape or the model.
        model: in evaluation mode; its answers do not end by themselves.
        inputs: makes the encoded prompt, so many times, on the model's device.
        decode: from the bytes of the picture to pixel values; None: it cannot be timed here.
        scale: of its width and depth, where its weights are random; None: it has its own.
        about: what made it.
    """

    name: str
    model: Any
    inputs: Callable[[int], dict[str, Tensor]]
    decode: Callable[[], object] | None
    scale: float | None
    about: dict[str, Any]


def of_shape(
    name: str,
    *,
    scale: float,
    words: int,
    frames: int | None,
    dtype: torch.dtype,
    device: torch.device,
    attention: str,
) -> Workload:
    """A real configuration, its widths and depths times ``scale``, with random weights.

    Raises:
        PrunusError: an unknown shape; ``frames`` for one that is asked about a picture.
    """
    shape = shape_of(name)
    if frames is not None and not shape.frames:
        raise PrunusError(f"{name} is asked about a picture: leave the number of frames out")
    shown = shape.frames if frames is None else frames
    model = build(shape, scale=scale, dtype=dtype, device=device, attention=attention)
    return Workload(
        name,
        model,
        lambda batch: prompt(model, shape, batch=batch, words=words, frames=shown),
        decoder(model, shape, shown),
        scale,
        {"scale": scale, "words": words, "frames": shown or None, "size": list(shape.size)},
    )


def weight_bytes(name: str, scale: float, dtype: torch.dtype) -> int:
    """Bytes of the weights of a shape, without making them."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(shape_of(name).config(scale))
    return int(sum(one.numel() for one in model.parameters()) * dtype.itemsize)


def of_model(
    name: str,
    image: Path | None,
    question: str,
    *,
    dtype: str,
    device: torch.device,
) -> Workload:
    """A model with its weights, asked about ``image`` (default: the sample of the demo).

    Raises:
        PrunusError: there is no such model or image.
    """
    from prunus.io.images import open_images
    from prunus.tasks.sample import load_sample

    loaded = load(name, dtype=dtype, device=str(device))
    model: Any = loaded[0]
    processor = loaded[1]
    model.generation_config.eos_token_id = None
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = 0
    [picture] = open_images([image]) if image is not None else [load_sample()[0]]
    file = encoded(picture)
    text, family = render(processor, question, ["image"]), family_of(model)

    def read() -> Any:
        return process(processor, text, [opened(file)], (), family)

    one = placed(read(), model.device, model.dtype)

    def inputs(batch: int) -> dict[str, Tensor]:
        if batch > 1 and family.counts_through:
            raise PrunusError(f"prompts for {name} cannot be put together: use --batch 1")
        return {name: value.repeat(batch, *[1] * (value.dim() - 1)) for name, value in one.items()}

    about = {"image": None if image is None else image.name, "question": question}
    return Workload(name, model, inputs, read, None, {**about, "size": list(picture.size[::-1])})
