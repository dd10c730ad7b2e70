"""How far a token's state moves between two layers (CLSE's rivals, arXiv 2606.24165, Fig. 5c).

The paper names the two measures and shows curves; it prints neither formulas nor values. What
stands here is the plain reading of the names. Each token is measured by itself: no grid is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def residual_norm(current: Tensor, reference: Tensor, chunk: int = 512) -> Tensor:
    """SFR: ``||current - reference||_1`` of each token, float32 ``[G, n]``.

    Args:
        current, reference: ``[G, n, D]``, any floating dtype; the difference is taken in float32.
        chunk: channels per step, which bounds the working memory to a few ``[G, n, chunk]``.
    """
    total = current.new_zeros(current.shape[:-1], dtype=torch.float32)
    for now, then in zip(current.split(chunk, -1), reference.split(chunk, -1), strict=True):
        total += (now.float() - then.float()).abs().sum(dim=-1)
    return total


def mean_shift(current: Tensor, reference: Tensor) -> Tensor:
    """MMD: ``|mean_c current - mean_c reference|`` of each token over its channels, float32
    ``[G, n]``.

    Args:
        current, reference: ``[G, n, D]``, any floating dtype; the means are taken in float32.
    """
    now = current.mean(dim=-1, dtype=torch.float32)
    return (now - reference.mean(dim=-1, dtype=torch.float32)).abs()


def moved(current: Tensor, reference: Tensor, chunk: int = 512) -> Tensor:
    """``||current - reference||_2`` of each token, float32 ``[G, n]`` (V2Drop); arguments as of
    :func:`residual_norm`."""
    total = current.new_zeros(current.shape[:-1], dtype=torch.float32)
    for now, then in zip(current.split(chunk, -1), reference.split(chunk, -1), strict=True):
        total += (now.float() - then.float()).square().sum(dim=-1)
    return total.sqrt()
