"""The two measures of movement against one loop per token and channel."""

from __future__ import annotations

import pytest
import torch

from prunus.signals.change import mean_shift, residual_norm
from tests.support.literal.change import literal

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_are_the_literal_sums_in_single_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    current = (torch.randn(2, 5, 37) * 4 + 1).to(dtype)
    reference = (torch.randn(2, 5, 37) * 4).to(dtype)
    norms, shifts = residual_norm(current, reference, chunk=16), mean_shift(current, reference)
    assert norms.shape == shifts.shape == (2, 5)
    assert norms.dtype == shifts.dtype == torch.float32
    for image in range(2):
        for token in range(5):
            now, then = current[image, token].tolist(), reference[image, token].tolist()
            norm, shift = literal(now, then)
            assert float(norms[image, token]) == pytest.approx(norm, rel=1e-6)
            assert float(shifts[image, token]) == pytest.approx(shift, abs=1e-5)
    assert torch.equal(mean_shift(reference, current), shifts)  # whichever way it goes
    assert torch.equal(residual_norm(reference, current, chunk=16), norms)


def test_channels_that_move_against_each_other_have_a_norm_but_no_shift() -> None:
    reference = torch.zeros(1, 2, 4)
    current = torch.tensor([[[1.0, -1.0, 2.0, -2.0], [0.0, 0.0, 0.0, 0.0]]])
    assert residual_norm(current, reference).tolist() == [[6.0, 0.0]]
    assert mean_shift(current, reference).tolist() == [[0.0, 0.0]]
