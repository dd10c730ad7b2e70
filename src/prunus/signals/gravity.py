"""How much attention rotary embeddings give to a token for being near (SparseVLM v2.0)."""

from __future__ import annotations

import torch
from torch import Tensor


def gravity(words: tuple[Tensor, Tensor], tokens: tuple[Tensor, Tensor]) -> Tensor:
    """Float32 ``[G, T, n]``: the logit of a query of ones and a key of ones that are turned by
    rotary embedding, ``(2 / sqrt(d)) sum_m cos(D w_m)`` for a distance D and the d / 2 frequencies
    w_m; the mean over the axes of positions where there are several.

    Args:
        words: cosines and sines float32 ``[G, T, A, d]`` of the angles of queries; tokens:
            ``[G, n, A, d]``, of keys.
    """
    pairs = zip(words, tokens, strict=True)
    cos, sin = (torch.einsum("gtaf,gnaf->gtn", own, other) for own, other in pairs)
    axes, width = words[0].shape[2:]
    return (cos + sin) / float(axes * width**0.5)
