"""Positions of tokens that are no line (M-RoPE), carried beside their features.

vLLM computes positions of a prompt before anything is seen, and slices features where a chunk of
the prompt begins or ends. So text gets its positions at once, every visual token provisionally that
of its image's beginning, and how far it is from there travels in further channels of its feature:
as digits, because half-precision numbers hold no large ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_BASE, _DIGITS, _AXES = 128, 3, 3
#: Further channels of each feature.
CHANNELS = _DIGITS * _AXES
#: The largest distance that fits.
LARGEST = _BASE**_DIGITS - 1


def offsets(frames: int, rows: int, cols: int, step: float) -> Tensor:
    """Int64 ``[3, N]``: how far each cell of a grid is from its beginning, in time (``step`` for a
    frame, rounded down), row and column."""
    time = (torch.arange(frames) * step).long()
    axes = torch.meshgrid(time, torch.arange(rows), torch.arange(cols), indexing="ij")
    return torch.stack([axis.reshape(-1) for axis in axes])


def extent(frames: int, rows: int, cols: int, step: float) -> int:
    """By how much positions go on behind such a grid."""
    return max(int((frames - 1) * step), rows - 1, cols - 1) + 1


def with_positions(features: Tensor, away: Tensor) -> Tensor:
    """``features [k, D]`` with ``away`` (int64 ``[3, k]``) behind: ``[k, D + CHANNELS]``."""
    digits = [(away // _BASE**power) % _BASE for power in range(_DIGITS)]
    rows = torch.cat(digits).T.to(features)
    return torch.cat([features, rows], 1)


def taken_apart(carried: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Features ``[k, D]`` each, and int64 ``[3, sum of k]``, how far their tokens are from where
    their image begins."""
    features = [one[:, :-CHANNELS] for one in carried]
    rows = torch.cat([one[:, -CHANNELS:] for one in carried]).T.round().long()
    digits = rows.view(_DIGITS, _AXES, -1)
    return features, sum(  # type: ignore[return-value] # of tensors
        digits[power] * _BASE**power for power in range(_DIGITS)
    )
