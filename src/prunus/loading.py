"""Loading a model and its processor: built-in, from a folder, or from the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunus.builtin import BUILTIN, check_name, load_builtin
from prunus.errors import PrunusError, PrunusFileError, PrunusTypeError, brief, shown
from prunus.families import model_types
from prunus.inference.checkpoint import load_weights
from prunus.inference.processor import load_processor
from prunus.io.broken import broken
from prunus.method.question import belongs
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
        PrunusError: nothing is found under that name, it is of no supported family, or the options
            contradict each other. The message says what can be loaded.
        PrunusFileError: it is there and cannot be loaded: files that are broken or missing, weights
            that the model lacks, has no place for, or has in another shape.
    """
    check_transformers()
    if not isinstance(name, (str, Path)) or not str(name):
        raise PrunusTypeError(
            f"the model {shown(name)} is no name: give a built-in model ({', '.join(BUILTIN)}), a "
            "folder or a Hugging Face id"
        )
    if device is not None and device_map is not None:
        raise PrunusError("give either device or device_map, not both")
    wanted = _dtype(dtype)
    place = None if device is None else _device(device)
    if str(name) in BUILTIN:
        if device_map is not None or kwargs:
            raise PrunusError(f"built-in models take dtype and device only, not {sorted(kwargs)}")
        model, processor = load_builtin(
            str(name), wanted if isinstance(wanted, torch.dtype) else torch.float32
        )
    else:
        check_name(str(name))
        model, processor = _from_transformers(str(name), wanted, device_map, kwargs)
    belongs(processor, model)  # its chat template tells where the user's question is
    return (model if place is None else model.to(place)).eval(), processor


def _device(device: Any) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise PrunusError(
            f"device={shown(device)} is unknown: try cpu or cuda ({brief(error)})"
        ) from error


def _dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    if isinstance(dtype, torch.dtype):
        found: Any = dtype
    elif dtype == "auto":
        return dtype
    else:
        found = getattr(torch, dtype, None) if isinstance(dtype, str) else None
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise PrunusError(
            f"dtype={shown(dtype)} is unknown: try float32, bfloat16, float16 or auto"
        )
    return found


def _from_transformers(
    name: str, dtype: torch.dtype | str, device_map: Any, kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    from transformers import AutoConfig

    # Not Path's own ways: they raise for names that no file can have.
    looks_local = name.startswith((".", "/", "~")) or os.path.exists(name)
    place = os.path.expanduser(name) if looks_local else name
    if looks_local and not os.path.isdir(place):
        raise PrunusError(
            f"no model folder at {shown(name)}: built-in models are {', '.join(BUILTIN)}"
        )
    with broken(name):
        try:
            config = AutoConfig.from_pretrained(place)
        except (OSError, ValueError) as error:
            if looks_local:
                raise PrunusFileError(f"no model in the folder {name}: {brief(error)}") from error
            raise PrunusError(
                f"no model {shown(name)} found (not built in: {', '.join(BUILTIN)}; no such "
                f"folder; not in the Hugging Face cache or hub): {brief(error)}"
            ) from error
    known = model_types()
    if config.model_type not in known:
        raise PrunusError(
            f"{name} is a {config.model_type!r} model, which prunus does not support: supported "
            f"are {', '.join(sorted(known))}"
        )
    model = load_weights(name, place, dtype=dtype, device_map=device_map, **kwargs)
    with broken(name):
        return model, load_processor(place, config)
