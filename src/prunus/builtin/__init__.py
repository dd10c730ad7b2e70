"""Small real models that ship with prunus, and the task they are trained on."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

#: Names of the models that :func:`load_builtin` knows, with one line each.
BUILTIN: dict[str, str] = {
    "tiny-llava": "LLaVA-1.5 in small: 576 visual tokens, CLIP tower of 9 layers, Llama of 12",
    "tiny-qwen": "Qwen2.5-VL in small: images of many sizes, videos of 8 frames, window attention",
}


def load_builtin(name: str) -> tuple[Any, Any]:
    """A built-in model (eval mode, float32, CPU) and its processor, from package data.

    Without torchvision, which transformers' video processors need, the processor of ``tiny-qwen``
    takes images and refuses videos.

    Raises:
        ValueError: an unknown name, or weights that this installation lacks.
    """
    if name not in BUILTIN:
        raise ValueError(f"no built-in model {name!r}; there is {', '.join(BUILTIN)}")
    from transformers import AutoModelForImageTextToText

    from prunus.processor import load_processor

    with as_file(files("prunus.builtin").joinpath("weights").joinpath(name)) as folder:
        if not (folder / "model.safetensors").is_file():
            raise ValueError(
                f"the weights of {name!r} are missing from this installation; "
                f"train them with: prunus builtin train {name}"
            )
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype="float32", local_files_only=True
        )
        processor = load_processor(str(folder), model.config)
    return model.eval(), processor


__all__ = ["BUILTIN", "load_builtin"]
