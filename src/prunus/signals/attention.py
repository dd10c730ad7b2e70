"""One row of an attention map, without the map."""

from __future__ import annotations

import torch
from torch import Tensor


def last_row(query: Tensor, key: Tensor, visible: Tensor, scaling: float) -> Tensor:
    """Post-softmax attention of one query token, averaged over heads.

    Args:
        query: ``[B, H, 1, d]`` after rotary embedding; key: ``[B, H_kv, S, d]`` likewise.
        visible: bool ``[B, S]``, the keys that token may see (causal, no padding).
        scaling: factor on the logits, usually ``d ** -0.5``.

    Returns:
        float32 ``[B, S]``; the softmax runs in fp32 whatever the input.
    """
    batch, heads, _, dim = query.shape
    groups = heads // key.shape[1]
    grouped = query.view(batch, key.shape[1], groups, dim)
    logits = torch.matmul(grouped, key.transpose(-1, -2)).float() * scaling
    logits = logits.masked_fill(~visible[:, None, None, :], float("-inf"))
    return logits.softmax(dim=-1).flatten(1, 2).mean(dim=1)
