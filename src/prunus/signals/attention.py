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
    query: Tensor,
    key: Tensor,
    scaling: float,
    bias: Tensor | None = None,
    budget: int | None = None,
) -> Tensor:
    """Attention that each token receives: mean of the post-softmax map over heads and queries.

    (The mean over *keys* is 1/S for every query whatever the map holds, and says nothing.)

    Args:
        query, key: ``[B, H, S, d]``; every query sees every key.
        scaling: factor on the logits, usually ``d ** -0.5``.
        bias: float32 ``[B, S]``, added to the logits of each key.
        budget: elements of the map that exist at a time (default: what fits the caches of a CPU,
            or keeps a GPU busy). Heads and queries are taken in pieces, so that memory grows with
            S and not with its square.

    Returns:
        float32 ``[B, S]``; computed in fp32 whatever the input. Each row sums to 1.
    """
    batch, heads, tokens, _ = query.shape
    budget = budget or (2**19 if query.device.type == "cpu" else 2**26)
    queries = (query.float() * scaling).flatten(0, 1)
    columns = key.float().flatten(0, 1).transpose(1, 2)
    together = max(1, budget // (tokens * tokens))
    step = max(1, budget // (together * tokens))
    shift = None if bias is None else bias.repeat_interleave(heads, 0)[:, None]
    total = queries.new_zeros(batch * heads, tokens)
    for first in range(0, batch * heads, together):
        some = slice(first, first + together)
        for start in range(0, tokens, step):
            logits = torch.matmul(queries[some, start : start + step], columns[some])
            if shift is not None:
                logits += shift[some]
            total[some] += logits.softmax(dim=-1).sum(dim=1)
    return total.view(batch, heads, tokens).mean(dim=1) / tokens
