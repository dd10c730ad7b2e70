"""What ``keep`` means."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from prunus.method.budget import check_keep, resolve_keep


@pytest.mark.parametrize("original", [1, 2, 9, 36, 576, 729, 1296])
def test_shares_are_rounded_down_and_never_by_floating_point(original: int) -> None:
    for parts in range(1, 40):
        for taken in range(1, parts + 1):
            exact = max(1, Fraction(taken, parts) * original // 1)
            assert resolve_keep(taken / parts, original) == exact


def test_at_least_one_at_most_all() -> None:
    assert resolve_keep(1e-9, 576) == 1
    assert resolve_keep(0.001, 576) == 1
    assert resolve_keep(1.0, 576) == 576
    assert resolve_keep(1, 576) == 1
    assert resolve_keep(576, 576) == resolve_keep(577, 576) == resolve_keep(10**12, 576) == 576
    assert resolve_keep(0.999, 10) == 9  # down, not to the nearest
    assert resolve_keep(0.55, 10) == 5


def test_one_is_a_token_and_one_point_zero_is_everything() -> None:
    assert check_keep(1) == 1 and isinstance(check_keep(1), int)
    assert check_keep(1.0) == 1.0 and isinstance(check_keep(1.0), float)
    assert isinstance(check_keep(np.int64(7)), int) and isinstance(
        check_keep(np.float32(0.5)), float
    )


@pytest.mark.parametrize("keep", [0, -1, 0.0, -0.5, 1.0000001, 2.5, float("nan"), float("inf")])
def test_out_of_range(keep: Any) -> None:
    with pytest.raises(ValueError, match="keep="):
        check_keep(keep)


@pytest.mark.parametrize("keep", [True, False, "0.5", None, [1], 1j])
def test_no_number(keep: Any) -> None:
    with pytest.raises(TypeError, match="is not a number"):
        check_keep(keep)
