"""Masks behind a cut: what the model made for the whole prompt, gathered for what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError

FLASH = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
SUPPORTED = ("eager", "sdpa", *FLASH)


def check_backend(name: str | None) -> None:
    """Raise PrunusError for an attention implementation whose masks cannot be gathered."""
    if name not in SUPPORTED:
        raise PrunusError(
            f"attention implementation {name!r} is not supported: "
            f"call model.set_attn_implementation(...) with one of {', '.join(SUPPORTED)}"
        )


@dataclass(frozen=True)
class Slots:
    """Queries and keys of one layer, which may be fewer than its mask was made for.

    Attributes:
        query: int64 ``[B, Q]``; key: int64 ``[B, K]``: their logical positions.
        valid: bool ``[B, K]``, keys that are no padding of ours; None where all are.
        first_row, first_column: positions of the first row and the first column of the mask. What
            stands before its first column is out of a window, and seen by nobody.
        square: queries and keys are the same tokens in the same order.
    """

    query: Tensor
    key: Tensor
    valid: Tensor | None
    first_row: int = 0
    first_column: int = 0
    square: bool = False


def gather_mask(mask: Any, slots: Slots, backend: str, causal: bool, states: Tensor) -> Any:
    """The rows and columns of ``mask`` that ``slots`` stand for, in the form it has.

    Args:
        mask: None, 2-D as FlashAttention takes it (bool or int, ``[B, columns]``), or 4-D (bool, or
            float to be added), ``[B|1, 1|H, rows, columns]``.
        backend: the attention implementation, which says what no mask means.
        causal: whether no mask means that nobody sees what comes behind.
        states: what the layer runs on, for dtype and device of a mask that is made anew.

    Returns:
        None wherever the kernel's own rule is right (the fast path). Padding queries may see
        themselves, so that no row is empty.

    Raises:
        PrunusError: a mask of another form.
    """
    device = states.device if mask is None else getattr(mask, "device", states.device)
    query, key = slots.query.to(device), slots.key.to(device)
    valid = None if slots.valid is None else slots.valid.to(device)
    if backend in FLASH:
        return flat_mask(mask, key - slots.first_column, valid)
    if mask is None and valid is None and (not causal or slots.square or query.shape[1] == 1):
        return None
    own = query[:, :, None] == key[:, None, :]
    if mask is None:
        see = torch.ones_like(own)
        if causal:
            see = key[:, None, :] <= query[:, :, None]
        if valid is not None:
            see = (see & valid[:, None, :]) | own
        return _as(see[:, None], backend, states.dtype)
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        kind = f"{mask.ndim}-D" if isinstance(mask, Tensor) else type(mask).__name__
        raise PrunusError(
            f"the decoder layers were given a mask of a form that cannot be gathered ({kind}): "
            "give a 2-D or a 4-D mask, or none, with eager or sdpa attention"
        )
    column = key - slots.first_column
    found = _pick(mask, query - slots.first_row, column.clamp(min=0))
    hide = column < 0
    if valid is not None:
        hide = hide | ~valid
    closed = hide[:, None, None, :] & ~own[:, None]
    if mask.dtype == torch.bool:
        found = found & ~closed
        return found if valid is None else found | (own & ~valid[:, None, :])[:, None]
    return found.masked_fill(closed, torch.finfo(mask.dtype).min)


def flat_mask(mask: Any, key: Tensor, valid: Tensor | None) -> Tensor | None:
    """Columns ``key`` (int64 ``[B, K]``) of a 2-D ``mask``, of those that are ``valid`` (bool ``[B,
    K]``, None: all); None where there is nothing to hide."""
    if mask is None:
        return valid
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        kind = f"of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise PrunusError(
            f"FlashAttention and layers with linear attention take a 2-D mask, not one {kind}: "
            "give a 2-D mask (or, without linear attention, use sdpa)"
        )
    found: Tensor = mask.bool().expand(key.shape[0], -1).gather(1, key.to(mask.device))
    return found if valid is None else found & valid.to(found.device)


def _pick(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """``[B, 1|H, Q, K]`` of ``[B|1, 1|H, rows, columns]``."""
    batch, (queries, keys) = query.shape[0], (query.shape[1], key.shape[1])
    mask = mask.expand(batch, *mask.shape[1:])
    heads, columns = mask.shape[1], mask.shape[3]
    found = mask
    if mask.shape[2] > 1 or queries > 1:  # a single row is the one of a single query
        found = mask.gather(2, query[:, None, :, None].expand(-1, heads, -1, columns))
    return found.gather(3, key[:, None, None, :].expand(-1, heads, queries, keys))


def _as(see: Tensor, backend: str, dtype: torch.dtype) -> Tensor:
    """Bool as SDPA takes it; for eager attention, a float to be added."""
    if backend != "eager":
        return see
    allowed = torch.zeros((), dtype=dtype, device=see.device)
    return torch.where(see, allowed, torch.finfo(dtype).min)
