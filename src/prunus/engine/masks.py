"""Attention masks for the physical length of one layer, in the form each backend expects."""

from __future__ import annotations

import torch
from torch import Tensor

FLASH = ("flash_attention_2", "flash_attention_3")
SUPPORTED = ("eager", "sdpa", *FLASH)


def check_backend(name: str) -> None:
    """Raise ValueError for an attention implementation whose mask format we do not build."""
    if name not in SUPPORTED:
        raise ValueError(
            f"attention implementation {name!r} is not supported: "
            f"call model.set_attn_implementation(...) with one of {', '.join(SUPPORTED)}"
        )


def causal_mask(
    valid: Tensor | None,
    queries: int,
    keys: int,
    dtype: torch.dtype,
    device: torch.device,
    kind: str,
) -> Tensor | None:
    """Mask of the last ``queries`` of ``keys`` tokens, causal over *physical* order.

    Args:
        valid: bool ``[B, keys]``, or None when no key is padding.
        kind: the attention implementation.

    Returns:
        None wherever the kernel's own causal rule is right (also the fast path); for eager a float
        ``[B|1, 1, queries, keys]`` to be added, for SDPA the same as bool, for FlashAttention the
        2-D ``valid``. Padding queries may see themselves, so that no row is empty.
    """
    check_backend(kind)
    if kind in FLASH:
        return valid
    if valid is None and (queries == 1 or (kind == "sdpa" and queries == keys)):
        return None
    key = torch.arange(keys, device=device)
    query = key[keys - queries :, None]
    mask = (key <= query)[None, None]
    if valid is not None:
        mask = mask & (valid.to(device)[:, None, None, :] | (key == query))
    if kind == "sdpa":
        return mask
    allowed = torch.zeros((), dtype=dtype, device=device)
    return torch.where(mask, allowed, torch.finfo(dtype).min)
