"""Loading a model for a command, with a spinner."""

from __future__ import annotations

from typing import Any

from prunus.cli.console import busy
from prunus.cli.errors import BadInput


def load_model(name: str, dtype: str = "auto", device: str = "auto") -> tuple[Any, Any]:
    """``(model, processor)`` on ``device``; "auto" is the first GPU if there is one.

    Raises:
        BadInput: nothing is found under that name, or dtype or device do not exist.
    """
    with busy(f"loading {name}"):
        from prunus.loading import load

        place = check_device(device)
        return load(name, dtype=dtype, device=place)


def check_device(device: str) -> str:
    """The device that is meant; "auto" is the first GPU if there is one.

    Raises:
        BadInput: it cannot be used.
    """
    import torch

    place = device
    if device == "auto":
        place = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # torch's own ways to say so
        raise BadInput(
            f"device {device!r} cannot be used (auto takes what there is): "
            + str(error).splitlines()[0]
        ) from error
    return place
