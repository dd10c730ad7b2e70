"""Where the decoder is in an unmodified model."""

from __future__ import annotations

from typing import Any


def decoder_of(model: Any) -> Any:
    """The stack of decoder layers, without a head, with which some models (Llama 4) give it."""
    found = model.get_decoder()
    return getattr(found, "model", found)
