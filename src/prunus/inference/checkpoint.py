"""A model's weights from disk, all of them: transformers fills what is missing with random ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prunus.errors import PrunusError, PrunusFileError
from prunus.io.broken import broken

_NAMED = 3  # weights that a message names


def load_weights(name: str, place: str, **options: Any) -> Any:
    """The model at ``place`` (a folder or Hugging Face id), which messages call ``name``.

    What transformers leaves out by rule (tied weights, buffers of older checkpoints) may be
    missing.

    Args:
        name: for messages.
        place: where it is.
        options: passed to ``from_pretrained``; with ``ignore_mismatched_sizes=True`` weights of
            other shapes are made anew, as there.

    Raises:
        PrunusFileError: the files are broken, or weights are missing, unexpected, or of other
            shapes.
    """
    from transformers import AutoModelForImageTextToText

    if options.pop("output_loading_info", False):
        raise PrunusError("output_loading_info is what prunus itself looks at: leave it out")
    lenient = bool(options.pop("ignore_mismatched_sizes", False))
    with broken(name):
        model, found = AutoModelForImageTextToText.from_pretrained(
            place, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    wrong = [
        *_told("missing", found["missing_keys"]),
        *_told("unexpected", found["unexpected_keys"]),
    ]
    if not lenient:
        shapes = (
            f"{key} {list(there)} instead of {list(wanted)}"
            for key, there, wanted in found["mismatched_keys"]
        )
        wrong += _told("of another shape", shapes)
    if wrong:
        raise PrunusFileError(
            f"the weights of {name} are not those of its configuration: {'; '.join(wrong)}. "
            "Download or save the model again; if it is meant so, load it with transformers and "
            "give it to prunus.prune"
        )
    return model


def _told(what: str, keys: Iterable[str]) -> list[str]:
    """How many weights are ``what``, and the first of them; nothing if none is."""
    names = sorted(keys)
    if not names:
        return []
    more = ", ..." if len(names) > _NAMED else ""
    return [f"{len(names)} {what} ({', '.join(names[:_NAMED])}{more})"]
