"""What single tokens contribute to one row of attention output: leave-one-out, without leaving
anything out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.signals.attention import row_weights


@dataclass(frozen=True)
class Influence:
    """How the attention output of the last prompt token (all heads, before the output projection)
    changes when the weight of one visual token is set to zero.

    Attributes:
        cosine: float32 ``[G, n]``, cosine of the output without that token and the whole output.
        change: float32 ``[G, n]``, L2 norm of the difference.
        output: float32 ``[G]``, L2 norm of the whole output.
    """

    cosine: Tensor
    change: Tensor
    output: Tensor


def leave_one_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """How the attention output ``O`` of one query token changes when the weight of one key is set
    to zero after the softmax, without renormalising (VisiPruner, arXiv 2510.17205, Eqs. 5-7).

    Without key j the output is ``O - c_j``, where ``c_j`` concatenates ``a_hj v_hj`` over heads. So
    with ``n_j = |c_j|^2`` and ``s_j = <O, c_j>`` the cosine is
    ``(|O|^2 - s_j) / (|O| sqrt(|O|^2 - 2 s_j + n_j))``, and nothing larger than one row per head is
    made.

    Args:
        query: ``[B, H, 1, d]`` after rotary embedding; key: ``[B, H_kv, S, d]`` likewise.
        value: ``[B, H_kv, S, d_v]``.
        visible, scaling, softcap, sinks: as in :func:`prunus.signals.attention.row_weights`.

    Returns:
        float32, whatever the input: cosines ``[B, S]``, L2 changes ``[B, S]``, and ``|O|`` ``[B]``.
    """
    weights = row_weights(query.float(), key.float(), visible, scaling, softcap, sinks)[:, :, 0]
    weights = weights.unflatten(1, (key.shape[1], -1))
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
