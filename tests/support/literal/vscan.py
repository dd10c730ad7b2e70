"""VScan's stage behind the vision tower (arXiv 2505.22654), read literally."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def scanned(
    features: Sequence[Tensor],
    local: Sequence[float],
    overall: Sequence[float],
    rows: int,
    cols: int,
    keep: int,
    side: int,
) -> tuple[list[int], list[Tensor]]:
    """Tokens of one image that stay, ascending, and what they become."""
    down, across = min(side, rows), min(side, cols)
    most = -(-keep // (2 * down * across))
    taken = [0] * (down * across)
    kept: list[int] = []
    for token in sorted(range(rows * cols), key=lambda n: (-local[n], n)):
        row, col = divmod(token, cols)
        window = min(row // (rows // down), down - 1) * across
        window += min(col // (cols // across), across - 1)
        if len(kept) < keep // 2 and taken[window] < most:
            taken[window] += 1
            kept.append(token)
    others = [n for n in range(rows * cols) if n not in kept]
    others.sort(key=lambda n: (-overall[n], n))
    kept = sorted(kept + others[: keep - len(kept)])
    members: dict[int, list[Tensor]] = {token: [features[token]] for token in kept}
    for token in range(rows * cols):
        if token in kept:
            continue
        alike = [float(torch.cosine_similarity(features[token], features[k], 0)) for k in kept]
        members[kept[max(range(len(kept)), key=lambda n: (alike[n], -n))]].append(features[token])
    return kept, [sum(own[1:], own[0]) / len(own) for own in members.values()]
