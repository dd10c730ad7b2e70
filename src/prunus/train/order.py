"""Which example comes when: a function of seed and position, so that going on needs no replay."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def index_at(position: int, size: int | None, seed: int) -> int:
    """The example at ``position`` of an endless sequence of epochs, each of which holds every one
    of ``size`` examples once, in an order of its own. An endless source (``size`` None) is taken
    as it comes."""
    if size is None:
        return position
    epoch, at = divmod(position, size)
    return int(_epoch(size, seed, epoch)[at])


@lru_cache(maxsize=2)
def _epoch(size: int, seed: int, number: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, number, 6]).permutation(size)
