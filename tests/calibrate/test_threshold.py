"""Exactly as many values exceed the threshold as were asked for."""

import numpy as np
import pytest

from prunus.calibrate.threshold import threshold_for


def exceeding(values: np.ndarray, count: int) -> int:
    return int((values > np.float32(threshold_for(values, count))).sum())


def test_every_count_of_different_values() -> None:
    values = np.random.default_rng(0).random(50, dtype=np.float32)
    assert [exceeding(values, count) for count in range(1, 51)] == [*range(1, 51)]


def test_the_threshold_lies_midway() -> None:
    values = np.array([1, 4, 2], dtype=np.float32)
    assert [threshold_for(values, count) for count in (1, 2, 3)] == [3, 1.5, 0.5]


def test_neighbouring_floats() -> None:
    one = np.float32(1)
    values = np.array([one, np.nextafter(one, np.float32(2))], dtype=np.float32)
    assert exceeding(values, 1) == 1 and exceeding(values, 2) == 2


def test_equal_values_go_together() -> None:
    values = np.array([5, 3, 3, 3, 3, 1], dtype=np.float32)
    assert [exceeding(values, count) for count in range(1, 7)] == [1, 1, 1, 5, 5, 6]
    same = np.full(4, 2, dtype=np.float32)
    assert [exceeding(same, count) for count in range(1, 5)] == [0, 0, 4, 4]


def test_zeros_never_exceed() -> None:
    values = np.array([2, 0, 0], dtype=np.float32)
    assert [exceeding(values, count) for count in (1, 2, 3)] == [1, 1, 1]
    assert threshold_for(np.zeros(2, dtype=np.float32), 1) == 0


@pytest.mark.parametrize("count", [0, -1, 4])
def test_counts_that_cannot_be(count: int) -> None:
    with pytest.raises(ValueError, match="cannot exceed"):
        threshold_for(np.ones(3, dtype=np.float32), count)
