"""How a number of tokens is divided among parts."""

from __future__ import annotations

import itertools

import pytest

from prunus.signals.shares import shares


@pytest.mark.parametrize(
    ("count", "sizes", "left", "expected"),
    [
        (10, [5, 5], [5, 5], [5, 5]),
        (3, [16, 32], [16, 32], [1, 2]),
        (5, [16, 24], [16, 24], [2, 3]),
        (1, [8, 8, 8], [8, 8, 8], [1, 0, 0]),  # of equal remainders the first
        # 0.36, 1.07, 0.71 ...: the largest remainder is not that of the largest part.
        (5, [2, 2, 2, 6, 6, 6, 4], [2, 2, 2, 6, 6, 6, 4], [1, 0, 0, 1, 1, 1, 1]),
        (4, [4, 12], [4, 2], [2, 2]),  # what a part cannot take goes to the other
        (9, [4, 0, 0], [4, 4, 4], [4, 3, 2]),  # all alike where nothing counts
        (0, [3, 3], [3, 3], [0, 0]),
        (2, [3, 3], [0, 2], [0, 2]),
    ],
)
def test_in_proportion(count: int, sizes: list[int], left: list[int], expected: list[int]) -> None:
    assert shares(count, sizes, left) == expected


def test_every_count_is_given_out() -> None:
    for first, second, third in itertools.product(range(4), repeat=3):
        left = [first, second, third]
        for count in range(sum(left) + 1):
            found = shares(count, [3, 5, 4], left)
            assert sum(found) == count
            assert all(0 <= own <= most for own, most in zip(found, left, strict=True))
