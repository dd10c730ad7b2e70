"""Real handwritten digits (8x8, scikit-learn's ``load_digits``), split by sample.

The arrays travel with the package as ``data/digits.npz``, so that neither drawing a scene nor
training a built-in model needs scikit-learn. :func:`rebuild` remakes that file.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

#: How many of the 1,797 samples go to training and validation; the rest are for tests.
_TRAIN, _VAL = 1200, 200
#: Seed of the permutation that decides the split. Changing it invalidates trained weights.
_SPLIT_SEED = 20_170


@lru_cache(maxsize=1)
def digit_data() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images ``(1797, 8, 8)`` uint8 in 0..16 and labels ``(1797,)`` uint8 in 0..9."""
    with files("prunus.tasks").joinpath("data/digits.npz").open("rb") as handle:
        archive = np.load(handle, allow_pickle=False)
        return archive["images"], archive["labels"]


@lru_cache(maxsize=len(SPLITS))
def split_indices(split: Split) -> NDArray[np.int64]:
    """Sample ids ``(n,)`` int64 of one split; the three splits are disjoint and cover all."""
    if split not in SPLITS:
        raise PrunusError(f"unknown digit split {split!r}; there are {', '.join(SPLITS)}")
    total = len(digit_data()[1])
    order = np.random.default_rng(_SPLIT_SEED).permutation(total)
    parts = np.split(order, [_TRAIN, _TRAIN + _VAL])
    return np.sort(parts[SPLITS.index(split)])


def rebuild(path: str) -> None:
    """Write ``digits.npz`` from scikit-learn (only needed when the package data is remade)."""
    from sklearn.datasets import load_digits  # an extra: not needed at run time

    bunch = load_digits()
    np.savez_compressed(
        path,
        images=bunch.images.astype(np.uint8),
        labels=bunch.target.astype(np.uint8),
    )
