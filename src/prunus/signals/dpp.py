"""Greedy subsets of large determinant: MAP inference of a determinantal point process."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.signals.topk import Lines

_LEAST = 1e-12  # what a token adds where the rank is spent: nothing is negative, and nothing NaN
_NOISE = 1e-6  # of its own length, squared: below, what a token adds is rounding


def greedy_map(kernel: Tensor, count: int) -> Tensor:
    """Greedily the tokens with the largest determinant of ``kernel`` float32 ``[G, n, n]``
    (positive semidefinite), int64 ``[G, count]`` in the order of picking.

    Each next token is that whose determinant with those picked is largest, ties by lower index;
    once the rank is spent, all that are left are equal. By an incremental Cholesky factor, so that
    a step costs ``n`` products with those picked; nothing is read from the device.
    """
    groups, tokens, _ = kernel.shape
    # What each token would multiply the determinant by: its squared distance from the span of those
    # picked. -inf: picked.
    alone = kernel.diagonal(dim1=1, dim2=2)
    gain, least = alone.clamp_min(_LEAST), (_NOISE * alone).clamp_min_(_LEAST)
    factor = kernel.new_zeros(groups, count, tokens)
    picked = torch.zeros(count, groups, 1, dtype=torch.long, device=kernel.device)
    lines, square = Lines(kernel), torch.empty_like(gain)
    for step, best in enumerate(picked):
        added, at = gain.max(1, keepdim=True)
        best.copy_(at)
        row = lines[at]
        if step:
            before = factor[:, :step]
            own = before.gather(2, at[:, None].expand(-1, step, -1))  # [G, step, 1]
            row = torch.baddbmm(row, own.transpose(1, 2), before, alpha=-1)
        # Where the rank is spent the rest is rounding: divided by its root, again and again, it
        # would grow until it is no number.
        root = torch.where(added > _LEAST, added.sqrt(), torch.inf)
        row = torch.div(row[:, 0], root, out=factor[:, step])
        gain.sub_(torch.mul(row, row, out=square))
        gain.masked_fill_(gain < least, _LEAST)
        for values in (gain, least):
            values.scatter_(1, at, -torch.inf)
    return picked[..., 0].T.contiguous()


def greedy_macs(tokens: int, count: int) -> float:
    """Multiply-accumulates of :func:`greedy_map` for one image, beside making the kernel."""
    return tokens * count * (count - 1) / 2
