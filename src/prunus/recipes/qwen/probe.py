"""Read-outs of an early layer of the language model: where and when a visual token is, and what
has changed there. Training adds them; the finished model does not have them.

Questions alone teach a language model this only slowly: every answer is one signal, while here
every visual token gives one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunus.recipes.qwen.labels import label_video
from prunus.tasks.labels import IGNORE
from prunus.tasks.videos import SLICE, VideoScene

#: What a token of a video shows against the slice before: the same, something new, or the place
#: of something that is gone.
SAME, NEW, GONE = range(3)
_LARGEST, _LONGEST = 18, 6  # rows or columns of a grid, and positions of time


class Probe(nn.Module):
    """Linear read-outs of hidden states ``(b, n, width)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(width, 2)
        self.extent = nn.Linear(width, 2)
        self.time = nn.Linear(width, 1)
        self.change = nn.Linear(width, 3)

    def loss(
        self, seen: Tensor, at: Tensor, grid: tuple[int, int, int], change: Tensor | None
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss (scalar) and read-outs.

        ``seen`` ``(b, n + 1, width)`` are hidden states of visual tokens and of the mark behind
        them, ``at`` ``(3, b, n)`` int64 time, row and column, and ``change`` ``(b, n)`` int64, for
        videos, what :func:`changes` gives.
        """
        tokens = seen[:, :-1]
        half = _LARGEST / 2
        target = at[1:].permute(1, 2, 0).to(tokens.dtype) / half - 1
        miss = self.place(tokens).float() - target
        size = torch.tensor(grid[1:], device=seen.device) / half - 1
        extent = self.extent(seen[:, -1]).float() - size
        loss = miss.square().sum(-1).mean() + extent.square().sum(-1).mean()
        report = {"place": half * float(miss.detach().abs().mean())}
        if change is not None:
            late = self.time(tokens)[..., 0].float() - (at[0].to(tokens.dtype) / _LONGEST * 2 - 1)
            loss = loss + late.square().mean()
            costs = nn.functional.cross_entropy(
                self.change(tokens).float().flatten(0, 1),
                change.flatten(),
                ignore_index=IGNORE,
                reduction="none",
            ).view_as(change)
            right = self.change(tokens).detach().argmax(-1) == change
            for name, word in (("same", SAME), ("new", NEW), ("gone", GONE)):
                asked = change == word
                if asked.any():
                    loss = loss + costs[asked].mean()
                    report[name] = float(right[asked].float().mean())
        return loss, report


def changes(videos: Sequence[VideoScene], rows: int, cols: int) -> Tensor:
    """What each token shows against the slice before, ``(b, n)`` int64 of :data:`SAME`,
    :data:`NEW`, :data:`GONE`; ``IGNORE`` where an object only grazes it."""
    found = [_changes(video, rows, cols) for video in videos]
    return torch.from_numpy(np.stack(found)).flatten(1)


def _changes(video: VideoScene, rows: int, cols: int) -> NDArray[np.int64]:
    owners = np.stack([one.owner for one in label_video(video, rows, cols)])
    target = np.where(owners == IGNORE, IGNORE, SAME)
    for index, item in enumerate(video.objects):
        first, after = item.start // SLICE, item.end // SLICE
        if item.appears:
            target[first][owners[first] == index] = NEW
        if item.disappears:
            target[after][owners[after - 1] == index] = GONE
    return target
