"""Loading a model and its processor: built-in, from a folder, or from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunus.builtin import BUILTIN, load_builtin
from prunus.families.base import _FAMILIES, families
from prunus.processor import load_processor
from prunus.versions import check_transformers


def load(
    name: str | Path,
    *,
    dtype: torch.dtype | str = "auto",
    device: str | None = None,
    device_map: Any = None,
    **kwargs: Any,
) -> tuple[nn.Module, Any]:
    """Return ``(model, processor)``, the model in evaluation mode.

    Args:
        name: a built-in model ("tiny-llava"), a local folder, or a Hugging Face id.
        dtype: a torch dtype, its name ("bfloat16"), or "auto" for what the weights are stored in
            (built-in models: float32).
        device: where to put the model; default: where it is loaded.
        device_map: passed to ``from_pretrained`` (needs accelerate); not together with ``device``.
        kwargs: passed to ``from_pretrained`` of the model.

    Raises:
        ValueError: nothing is found under that name, it is of no supported family, or the options
            contradict each other. The message says what can be loaded.
    """
    check_transformers()
    if device is not None and device_map is not None:
        raise ValueError("give either device or device_map, not both")
    wanted = _dtype(dtype)
    if str(name) in BUILTIN:
        if device_map is not None or kwargs:
            raise ValueError(f"built-in models take dtype and device only, not {sorted(kwargs)}")
        model, processor = load_builtin(str(name))
        if isinstance(wanted, torch.dtype):
            model = model.to(wanted)
    else:
        model, processor = _from_transformers(str(name), wanted, device_map, kwargs)
    return (model if device is None else model.to(device)).eval(), processor


def _dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    found = getattr(torch, str(dtype), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype={dtype!r} is unknown: try float32, bfloat16, float16 or auto")
    return found


def _from_transformers(
    name: str, dtype: torch.dtype | str, device_map: Any, kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForImageTextToText

    looks_local = name.startswith((".", "/", "~")) or Path(name).exists()
    place = str(Path(name).expanduser()) if looks_local else name
    if looks_local and not Path(place).is_dir():
        raise ValueError(f"no model folder at {name}: built-in models are {', '.join(BUILTIN)}")
    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no model {name!r} found (not built in: {', '.join(BUILTIN)}; no such folder; not in "
            f"the Hugging Face cache or hub): {str(error).splitlines()[0]}"
        ) from error
    families()
    if config.model_type not in _FAMILIES:
        raise ValueError(
            f"{name} is a {config.model_type!r} model, which prunus does not support: supported "
            f"are {', '.join(sorted(_FAMILIES))}"
        )
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            place, dtype=dtype, device_map=device_map, **kwargs
        )
        return model, load_processor(place, config)
    except OSError as error:
        raise ValueError(f"{name} cannot be loaded: {str(error).splitlines()[0]}") from error
