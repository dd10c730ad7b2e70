"""Attention in which values stand for queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor


def value_attention(rows: Tensor, image: Tensor, everyone: Tensor, there: Tensor) -> Tensor:
    """Float32 ``[G, R, n]``: softmax of the products of ``rows [G, R, H, d]`` with ``everyone [G,
    P, H, d]``, of whom those ``there`` are (bool ``[G, P]``), over the root of d; the columns of
    ``image [G, n, H, d]``, who are some of them. Without a causal mask, mean over heads."""
    heads, width = rows.shape[2:]
    found = rows.new_zeros(len(rows), rows.shape[1], image.shape[1], dtype=torch.float32)
    for head in range(heads):  # one after the other: maps of all would be large
        own = rows[:, :, head].float() * width**-0.5
        logits = own @ everyone[:, :, head].float().transpose(1, 2)
        total = logits.masked_fill(~there[:, None], -torch.inf).logsumexp(2, keepdim=True)
        found += (own @ image[:, :, head].float().transpose(1, 2) - total).exp()
    return found / heads
