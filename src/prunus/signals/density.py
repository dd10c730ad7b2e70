"""How densely tokens lie among others: how alone one is, and which stand for many."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

_EPSILON = 1e-12


def diversity(
    vectors: Tensor, neighbours: int, tau: float | Literal["auto"], budget: int = 2**24
) -> Tensor:
    """How alone a token is (EvoPrune, arXiv 2603.03681, section 3): ``d = 1 - mean over the nearest
    of exp(-distance^2 / tau^2)``: near 0 in a crowd of similar tokens, near 1 for one like no
    other.

    Args:
        vectors: float32 ``[G, T, d]`` of length 1, so that squared distances lie in [0, 4].
        neighbours: K, nearest others (not the token itself) within the same image.
        tau: scale of the Gaussian; "auto": tau^2 is the mean squared distance to those neighbours,
            of each image by itself.
        budget: similarities that exist at a time.

    Returns:
        float32 ``[G, T]`` in [0, 1]; 0 where there is no other token.
    """
    groups, tokens, _ = vectors.shape
    nearest = min(neighbours, tokens - 1)
    if nearest < 1:
        return vectors.new_zeros(groups, tokens)
    columns = vectors.transpose(1, 2)
    step = max(1, budget // (groups * tokens))
    found = []
    for start in range(0, tokens, step):
        similar = torch.bmm(vectors[:, start : start + step], columns)
        similar.diagonal(start, 1, 2).fill_(float("-inf"))  # itself
        found.append(similar.topk(nearest, dim=-1, sorted=False).values)
    # For vectors of length 1 the nearest are the most similar: |a - b|^2 = 2 - 2 a.b
    squared = torch.cat(found, dim=1).mul_(-2.0).add_(2.0).clamp_(min=0.0)
    if tau == "auto":
        scale = squared.mean(dim=(1, 2), keepdim=True).clamp(min=_EPSILON)
    else:
        scale = torch.full_like(squared[:1, :1, :1], float(tau) ** 2)
    return 1.0 - torch.exp(-squared / scale).mean(dim=-1)


def density_peaks(states: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Density-peak clustering (SparseVLM, arXiv 2410.04417): ``count`` tokens that are dense and
    far from denser ones.

    Distances are L2 over the square root of the width; the density of a token is ``exp(-m)``, m the
    mean of the ``count`` smallest squared distances (its own 0 among them); it counts times the
    distance to the nearest denser token (of the densest: the largest distance there is). Of equally
    dense tokens the earlier one counts as denser.

    Args:
        states: ``[n, D]`` of any floating dtype; computed in float32.

    Returns:
        int64 ``[count]``, peaks from the best on, and int64 ``[n]``, the place among them of the
        peak nearest to each token (peaks: their own).
    """
    # Not by way of products, which leave equal tokens, and a token from itself, some way apart.
    exact = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(states.float(), states.float(), compute_mode=exact)
    distance = distance / states.shape[-1] ** 0.5
    tokens = len(distance)
    near = distance.square().topk(min(count, tokens), dim=-1, largest=False).values
    density = (-near.mean(-1)).exp()
    steps = torch.arange(tokens, device=states.device)
    earlier = (density[None] == density[:, None]) & (steps[None] < steps[:, None])
    denser = (density[None] > density[:, None]) | earlier
    apart = torch.where(denser, distance, torch.inf).amin(-1)
    apart = torch.where(denser.any(-1), apart, distance.max())
    order = torch.sort(density * apart, descending=True, stable=True).indices
    peaks = order[:count]
    nearest = distance[:, peaks].argmin(-1)
    nearest[peaks] = torch.arange(len(peaks), device=states.device)
    return peaks, nearest
