"""The best tokens: exactly so many, ascending, and of equal ones the lower index."""

from __future__ import annotations

import pytest
import torch

from prunus.signals.topk import first_best, stable_topk


def literal(scores: list[float], count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_sorting_by_hand_with_many_ties(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (3, 200), generator=generator).to(dtype)
    for count in (0, 1, 7, 100, 199, 200, 500):
        found = stable_topk(scores, count)
        assert found.dtype == torch.int64
        assert found.tolist() == [literal(row.tolist(), count) for row in scores]
    assert first_best(scores).tolist() == [literal(row.tolist(), 1)[0] for row in scores]


def test_leading_dimensions_and_infinities() -> None:
    scores = torch.tensor([[[1.0, float("inf"), float("-inf")], [2.0, 2.0, 2.0]]])
    assert stable_topk(scores, 2).tolist() == [[[0, 1], [0, 1]]]
    assert first_best(scores).tolist() == [[1, 0]]
    assert first_best(torch.full((1, 3), float("-inf"))).tolist() == [0]
