"""A few rows, or the column means, of an attention map, without the map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

#: What becomes of attention heads: their mean, the largest of them, or all.
ByHead = Literal["mean", "max", "each"]


def row_weights(
    query: Tensor,
    key: Tensor,
    visible: Tensor,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Post-softmax attention of a few query tokens, head by head.

    Args:
        query: ``[B, H, R, d]`` after rotary embedding; key: ``[B, H_kv, S, d]`` likewise.
        visible: what those tokens may see: bool ``[B, S]``, or float32 ``[B, 1|H, 1|R, S]`` that is
            added to the logits.
        scaling: factor on the logits, usually ``d ** -0.5``.
        softcap: bound that ``tanh`` keeps the scaled logits below (Gemma 2), if there is one.
        sinks: ``[H]``, a logit per head that takes part in the softmax and is nobody's (gpt-oss).

    Returns:
        float32 ``[B, H, R, S]``; the softmax runs in fp32 whatever the input.
    """
    batch, heads, rows, dim = query.shape
    shared = key.shape[1]
    grouped = query.reshape(batch, shared, heads // shared * rows, dim)
    logits = torch.matmul(grouped, key.transpose(-1, -2)).float().view(batch, heads, rows, -1)
    logits = logits * scaling
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if visible.dtype == torch.bool:
        logits = logits.masked_fill(~visible[:, None, None, :], float("-inf"))
    else:
        logits = logits + visible
    if sinks is None:
        return logits.softmax(dim=-1)
    sink = sinks.float().view(1, -1, 1, 1).expand(batch, heads, rows, 1)
    return torch.cat([logits, sink], dim=-1).softmax(dim=-1)[..., :-1]


def over_heads(weights: Tensor, heads: ByHead) -> Tensor:
    """Weights ``[B, H, ...]``, heads joined: ``[B, 1, ...]`` ("each": as they are)."""
    if heads == "each":
        return weights
    return weights.amax(1, keepdim=True) if heads == "max" else weights.mean(1, keepdim=True)


def last_row(
    query: Tensor,
    key: Tensor,
    visible: Tensor,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Post-softmax attention of one query token (``[B, H, 1, d]``), averaged over heads: float32
    ``[B, S]``. Arguments as in :func:`row_weights`."""
    return row_weights(query, key, visible, scaling, softcap, sinks)[:, :, 0].mean(dim=1)


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
