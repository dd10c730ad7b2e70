"""What another library raises about a model's files, as one error of prunus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prunus.errors import PrunusError, PrunusFileError, brief


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Turn whatever transformers raises about the files of a model into one line.

    A broken file ends in almost any exception there (KeyError, RecursionError, ones of safetensors
    and tokenizers): inside the block nothing else than reading happens.
    """
    try:
        yield
    except (PrunusError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        raise PrunusFileError(f"{name} cannot be loaded: {kind}{brief(error)}") from error
