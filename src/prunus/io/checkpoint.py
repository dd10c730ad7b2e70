"""Checkpoints of a training run: written whole or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from prunus.errors import PrunusFileError
from prunus.io.files import replacing


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` beside ``path`` and move it there in one step.

    Raises:
        PrunusFileError: it cannot be written; the old checkpoint is unchanged.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's own, on the way out of a full disk or Ctrl-C
            raise error.__context__ or error from None


def load(path: Path) -> dict[str, Any]:
    """Read what :func:`save` wrote.

    Raises:
        PrunusFileError: it is not there, or it is no checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PrunusFileError(f"the checkpoint {str(path)!r} cannot be read: {reason}") from error
    if not isinstance(state, dict):
        raise PrunusFileError(f"{str(path)!r} is no checkpoint")
    return state
