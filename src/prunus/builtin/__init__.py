"""Small real models that ship with prunus, and the task they are trained on."""

from __future__ import annotations

from importlib.resources import as_file, files

from transformers import LlavaForConditionalGeneration, LlavaProcessor

#: Names of the models that :func:`load_builtin` knows, with one line each.
BUILTIN: dict[str, str] = {
    "tiny-llava": "LLaVA-1.5 in small: 576 visual tokens, CLIP tower of 9 layers, Llama of 12",
}


def load_builtin(name: str) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A built-in model (eval mode, float32, CPU) and its processor, from package data."""
    if name not in BUILTIN:
        raise ValueError(f"no built-in model {name!r}; there is {', '.join(BUILTIN)}")
    with as_file(files("prunus.builtin").joinpath("weights").joinpath(name)) as folder:
        if not (folder / "model.safetensors").is_file():
            raise ValueError(
                f"the weights of {name!r} are missing from this installation; "
                f"train them with: prunus builtin train {name}"
            )
        model = LlavaForConditionalGeneration.from_pretrained(
            folder, dtype="float32", local_files_only=True
        )
        processor = LlavaProcessor.from_pretrained(folder, local_files_only=True)
    return model.eval(), processor


__all__ = ["BUILTIN", "load_builtin"]
