"""What a check was done with: versions, device, and the model, without saying where it lies."""

from __future__ import annotations

import json
import os
import platform
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from prunus.families import Family
from prunus.versions import __version__, tested

#: What else may make a difference, where it is installed.
_LIBRARIES = (
    "numpy",
    "pillow",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "torchvision",
    "accelerate",
    "peft",
    "av",
    "flash-attn",
)
_LETTERS = 12


def environment(model: Any, family: Family, processor: Any = None) -> dict[str, str]:
    """Names and values in words, for reports of faults: nothing in them is a path."""
    import transformers

    top = family.top
    found = {
        "prunus": __version__,
        "transformers": f"{transformers.__version__} (tested: {tested()})",
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "libraries": ", ".join(_installed()),
        "python": f"{platform.python_version()}, {platform.platform()}",
        "model": f"{type(top).__name__} ({family.name}), {len(family.layers)} decoder layers of "
        f"{type(family.layers[0]).__name__}",
        "sizes": ", ".join(f"{name} {value}" for name, value in family.architecture.items()),
        "configuration": configuration(top.config),
        "weights": weights(family.fingerprint()),
        "attention": str(family.text_config._attn_implementation),
        "dtype": str(top.dtype).removeprefix("torch."),
        "device": ", ".join(sorted(_devices(model))),
    }
    if processor is not None:
        found["processor"] = type(processor).__name__
    return found


def configuration(config: Any) -> str:
    """A short name of a model's configuration: equal for equal ones, wherever they were loaded
    from."""
    text = json.dumps(_without_places(config.to_dict()), sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:_LETTERS]


def weights(fingerprint: Tensor) -> str:
    """A short name of what tells a model's weights apart (float32 ``[2, 64]``), to three digits."""
    text = json.dumps([[f"{number:.3g}" for number in row] for row in fingerprint.tolist()])
    return sha256(text.encode()).hexdigest()[:_LETTERS]


def _without_places(value: Any) -> Any:
    """``value`` without entries that say where something lies, and without versions."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in _PLACES and not _is_path(v)}
        return {key: _without_places(one) for key, one in kept.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    return value


#: What differs between copies of one model.
_PLACES = ("_name_or_path", "name_or_path", "transformers_version", "_attn_implementation")


def _is_path(value: Any) -> bool:
    return isinstance(value, PurePath) or (isinstance(value, str) and os.path.isabs(value))


def _installed() -> list[str]:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _devices(model: Any) -> set[str]:
    return {
        f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"
        if device.type == "cuda"
        else f"{device} ({platform.machine()}, {os.cpu_count()} cores)"
        for device in {parameter.device for parameter in model.parameters()}
    }
