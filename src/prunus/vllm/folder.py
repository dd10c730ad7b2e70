"""Models as vLLM reads them: what stands in a folder, and built-in ones."""

from __future__ import annotations

import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError, brief, shown
from prunus.families import model_types

_CONFIG = "config.json"


def config_of(model: str) -> Any:
    """The configuration of a ``model``: a folder, or a Hugging Face id.

    Raises:
        PrunusError: nothing is there.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise PrunusError(f"no model {shown(model)} found: {brief(error)}") from error


def depth_of(config: Any) -> int:
    """Decoder layers of a model."""
    return int(config.get_text_config().num_hidden_layers)


def family_named(model: str, config: Any) -> str:
    """The name of the family of a ``model``.

    Raises:
        PrunusError: no family has it.
    """
    known = model_types()
    if config.model_type not in known:
        raise PrunusError(
            f"{model} is a {config.model_type!r} model, which prunus does not support: supported "
            f"are {', '.join(sorted(known))}"
        )
    return known[config.model_type].name


def write_builtin(name: str, folder: Path) -> Path:
    """The built-in model ``name`` in a new ``folder``, as vLLM reads it; the same model, whose
    rotary axes, one for each channel in turn, are written as vLLM has them."""
    with as_file(files("prunus.builtin").joinpath("weights").joinpath(name)) as own:
        shutil.copytree(own, folder)
    config = json.loads((folder / _CONFIG).read_text())
    rope = config["text_config"].get("rope_parameters") or {}
    if sections := rope.get("mrope_section"):
        turns = [sum(sections[axis::3]) for axis in range(3)]
        rope.update(mrope_section=turns, mrope_interleaved=True)
        (folder / _CONFIG).write_text(json.dumps(config))
    return folder
