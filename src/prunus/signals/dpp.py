"""Greedy subsets of large determinant: MAP inference of a determinantal point process."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.signals.topk import first_best

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
    gain = alone.clamp_min(_LEAST)
    factor = kernel.new_zeros(groups, count, tokens)
    picked = torch.zeros(groups, count, dtype=torch.long, device=kernel.device)
    for step in range(count):
        best = first_best(gain)[:, None]
        picked[:, step : step + 1] = best
        row = _at(kernel, best)
        if step:
            before = factor[:, :step]
            own = before.gather(2, best[:, None].expand(-1, step, -1))  # [G, step, 1]
            row = torch.baddbmm(row, own.transpose(1, 2), before, alpha=-1)
        added = gain.gather(1, best)[..., None]
        # Where the rank is spent the rest is rounding: divided by its root, again and again, it
        # would grow until it is no number.
        row = torch.where(added > _LEAST, row / added.sqrt(), 0.0)
        factor[:, step : step + 1] = row
        gain = gain - row[:, 0].square()
        gain = torch.where(gain < _NOISE * alone, _LEAST, gain).clamp_min(_LEAST)
        gain = gain.scatter(1, picked[:, : step + 1], -torch.inf)
    return picked


def _at(kernel: Tensor, best: Tensor) -> Tensor:
    """Rows ``best`` (int64 ``[G, 1]``) of ``[G, n, n]``: ``[G, 1, n]``."""
    return kernel.gather(1, best[..., None].expand(-1, -1, kernel.shape[2]))


def greedy_macs(tokens: int, count: int) -> float:
    """Multiply-accumulates of :func:`greedy_map` for one image, beside making the kernel."""
    return tokens * count * (count - 1) / 2
