"""One row, or the column means, of an attention map, without the map."""

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


def column_mean(
    query: Tensor, key: Tensor, scaling: float, bias: Tensor | None = None, budget: int = 2**22
) -> Tensor:
    """Attention that each token receives: mean of the post-softmax map over heads and queries.

    (The mean over *keys* is 1/S for every query whatever the map holds, and says nothing.)

    Args:
        query, key: ``[B, H, S, d]``; every query sees every key.
        scaling: factor on the logits, usually ``d ** -0.5``.
        bias: float32 ``[B, S]``, added to the logits of each key.
        budget: elements of the map that exist at a time; queries are taken in pieces, so that
            memory grows with S and not with its square.

    Returns:
        float32 ``[B, S]``; computed in fp32 whatever the input. Each row sums to 1.
    """
    batch, heads, tokens, _ = query.shape
    columns = key.float().transpose(-1, -2)
    total = columns.new_zeros(batch, heads, tokens)
    step = max(1, budget // (batch * heads * tokens))
    for part in (query.float() * scaling).split(step, dim=2):
        logits = torch.matmul(part, columns)
        if bias is not None:
            logits += bias[:, None, None, :]
        total += logits.softmax(dim=-1).sum(dim=2)
    return total.mean(dim=1) / tokens
