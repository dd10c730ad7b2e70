"""What single tokens contribute to one row of attention output: leave-one-out, without leaving
anything out."""

from __future__ import annotations

import torch
from torch import Tensor


def leave_one_out(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """How the attention output ``O`` of one query token changes when the weight of one key is set
    to zero after the softmax, without renormalising (VisiPruner, arXiv 2510.17205, Eqs. 5-7).

    Without key j the output is ``O - c_j``, where ``c_j`` concatenates ``a_hj v_hj`` over heads. So
    with ``n_j = |c_j|^2`` and ``s_j = <O, c_j>`` the cosine is
    ``(|O|^2 - s_j) / (|O| sqrt(|O|^2 - 2 s_j + n_j))``, and nothing larger than one row per head is
    made.

    Args:
        query: ``[B, H, 1, d]`` after rotary embedding; key: ``[B, H_kv, S, d]`` likewise.
        value: ``[B, H_kv, S, d]``.
        visible: bool ``[B, S]``, the keys that token may see.
        scaling: factor on the logits, usually ``d ** -0.5``.

    Returns:
        float32, whatever the input: cosines ``[B, S]``, L2 changes ``[B, S]``, and ``|O|`` ``[B]``.
    """
    batch, heads, _, dim = query.shape
    grouped = query.view(batch, key.shape[1], heads // key.shape[1], dim)
    logits = torch.matmul(grouped.float(), key.float().transpose(-1, -2)) * scaling
    logits = logits.masked_fill(~visible[:, None, None, :], float("-inf"))
    weights = logits.softmax(dim=-1)
    value = value.float()
    output = torch.matmul(weights, value)
    norm = value.square().sum(-1)[:, :, None]
    changed = (weights.square() * norm).sum((1, 2))
    shared = (weights * torch.matmul(output, value.transpose(-1, -2))).sum((1, 2))
    whole = output.square().sum((1, 2, 3))[:, None]
    # Rounding may leave the squared length of a vanishing rest below zero.
    rest = (whole - 2 * shared + changed).clamp(min=0)
    cosine = (whole - shared) / (whole.sqrt() * rest.sqrt()).clamp(
        min=torch.finfo(torch.float32).tiny
    )
    return cosine, changed.sqrt(), whole[:, 0].sqrt()
