"""Tokens that go around the pooling of a family: what the tower left of each frame has the places
of the pooled tokens, of which a prompt has fewer than the tower has tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import AnyGrid, Grid


@dataclass
class Unpooled:
    """What goes around the pooling of one video.

    Attributes:
        grid: of the tower's tokens.
        features: ``[k, D]``, the survivors' as embeddings of the language model.
        sign: what the model was given to pool instead, in all channels.
    """

    grid: Grid
    features: Tensor
    sign: float


def seated(places: Tensor, kept: Tensor, frames: int, size: int) -> Tensor:
    """Int64 ``[frames * size]``: where each token of the tower is in the prompt.

    The ``m`` survivors of a frame that has ``p`` places are spread over these evenly, in order:
    the j-th at ``(j + 1/2) p / m``, rounded down. The places that are left are those of tokens that
    are gone.

    Args:
        places: int64 ``[frames * p]``, ascending; kept: int64 ``[k]``, ascending tokens.
    """
    found = []
    for frame, own in enumerate(places.view(frames, -1)):
        here = kept[kept // size == frame] % size
        seats = ((2 * torch.arange(len(here), device=own.device) + 1) * len(own)) // (
            2 * max(len(here), 1)
        )
        free = torch.ones(len(own), dtype=torch.bool, device=own.device)
        free[seats] = False
        rest = own[free] if bool(free.any()) else own[-1:]
        stays = torch.zeros(size, dtype=torch.bool, device=own.device)
        stays[here] = True
        gone = size - len(here)
        at = torch.empty(size, dtype=torch.long, device=own.device)
        at[stays] = own[seats]
        at[~stays] = rest[torch.arange(gone, device=own.device) * len(rest) // max(gone, 1)]
        found.append(at)
    return torch.cat(found)


def check_seats(
    name: str,
    looks: bool,
    merges: bool,
    asked: Sequence[AnyGrid],
    sizes: Sequence[int],
    left: Sequence[int],
) -> None:
    """Raise PrunusError where a method looks at what the model pools, or leaves more of a frame
    than its prompt has places for.

    Args:
        name: of the method; whether it ``looks`` at the tower, and ``merges`` there.
        asked: grids of the prompt; sizes: tokens of the tower's frames, and what is ``left``.
    """
    if looks:
        raise PrunusError(
            "a method looks at the vision tower's tokens, which the model pools behind it: "
            "those that it chooses among are others. Choose one that looks at no tower"
        )
    places = min(one.size // one.frames for one in asked)
    for size, rest in zip(sizes, left, strict=True):
        if merges and rest > places:
            raise PrunusError(
                f"{name} is to leave {rest} of {size} tokens of each frame, which go around the "
                "model's pooling into the places of its tokens, but there are "
                f"{places} for a frame: keep {places} at most"
            )
