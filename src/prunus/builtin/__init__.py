"""Small real models that ship with prunus, and the task they are trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

from prunus.errors import PrunusError, unknown

if TYPE_CHECKING:
    from PIL import Image

#: Names of the models that :func:`load_builtin` knows, with one line each.
BUILTIN: dict[str, str] = {
    "tiny-llava": "LLaVA-1.5 in small: 576 visual tokens, CLIP tower of 9 layers, Llama of 12",
    "tiny-qwen": "Qwen2.5-VL in small: images of many sizes, videos of 8 frames, window attention",
}


def check_name(name: str) -> None:
    """That ``name`` may be a model: a built-in one, a folder, or a Hugging Face id.

    Raises:
        PrunusError: it is none of these.
    """
    if name not in BUILTIN and "/" not in name and not os.path.exists(name):
        raise unknown("model", name, [*BUILTIN, "a local folder", "a Hugging Face id (a/b)"])


def knows_drawings(name: str, pictures: Sequence[Image.Image]) -> str:
    """One line about a built-in model that is asked about other pictures than the sample, which it
    knows nothing of; "" for others."""
    from prunus.tasks.sample import load_sample

    if name not in BUILTIN:
        return ""
    sample = load_sample()[0]
    if pictures and all(one.size == sample.size and one == sample for one in pictures):
        return ""
    return (
        f"{name} knows drawn scenes only: for photographs take a real model, as in --model "
        "llava-hf/llava-1.5-7b-hf, or --model FOLDER"
    )


def load_builtin(name: str, dtype: Any = "float32") -> tuple[Any, Any]:
    """A built-in model (eval mode, CPU) and its processor, from package data.

    Without torchvision, which transformers' video processors need, the processor of ``tiny-qwen``
    takes images and refuses videos.

    Args:
        name: one of :data:`BUILTIN`.
        dtype: of the weights; what transformers keeps in float32 (rotary frequencies) stays so.

    Raises:
        PrunusError: an unknown name, or weights that this installation lacks.
    """
    if name not in BUILTIN:
        raise PrunusError(f"no built-in model {name!r}; there is {', '.join(BUILTIN)}")
    from prunus.inference.checkpoint import load_weights
    from prunus.inference.processor import load_processor

    with as_file(files("prunus.builtin").joinpath("weights").joinpath(name)) as folder:
        if not (folder / "model.safetensors").is_file():
            raise PrunusError(
                f"the weights of {name!r} are missing from this installation; "
                f"train them with: prunus builtin train {name}"
            )
        model = load_weights(name, str(folder), dtype=dtype, local_files_only=True)
        processor = load_processor(str(folder), model.config)
    return model.eval(), processor


__all__ = ["BUILTIN", "load_builtin"]
