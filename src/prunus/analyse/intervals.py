"""Intervals of means that are neither shares nor differences: a bootstrap over images."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError
from prunus.results.stats import Estimate

_DRAWS = 1000


@lru_cache(maxsize=8)
def _draws(groups: int) -> NDArray[np.float64]:
    """How often each of ``groups`` is drawn, ``[draws, groups]``; always the same draws."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, groups, size=(_DRAWS, groups))
    counts = np.zeros((_DRAWS, groups))
    np.add.at(counts, (np.arange(_DRAWS)[:, None], chosen), 1.0)
    return counts


def mean_over_images(values: NDArray[np.float64], images: NDArray[np.int64]) -> Estimate:
    """Mean of ``values [n]`` with a 95 % percentile bootstrap interval, images (``images [n]``)
    drawn with all their values, because prompts about one image go together.

    The interval of what cannot be negative is not negative either. NaN values are left out; the
    mean is NaN if there is no other, and the interval if there is only one image.

    Raises:
        PrunusError: arrays of different lengths.
    """
    if len(values) != len(images):
        raise PrunusError(f"{len(values)} values do not belong to {len(images)} images: one each")
    there = ~np.isnan(values)
    values = values[there]
    if not len(values):
        return Estimate(math.nan, math.nan, math.nan)
    _, place = np.unique(images[there], return_inverse=True)
    sums, sizes = np.bincount(place, weights=values), np.bincount(place)
    mean = float(values.mean())
    if len(sums) < 2:
        return Estimate(mean, math.nan, math.nan)
    draws = _draws(len(sums))
    low, high = np.percentile((draws @ sums) / (draws @ sizes), [2.5, 97.5])
    return Estimate(mean, float(low), float(high))
