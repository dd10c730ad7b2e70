"""Uniform: exactly as many as asked for, and evenly in both directions."""

from __future__ import annotations

import math

import pytest
import torch

import prunus
from prunus.pruners.uniform import lattice
from tests.conftest import Case


@pytest.mark.parametrize(("rows", "cols"), [(24, 24), (1, 7), (7, 1), (5, 9), (9, 5), (1, 1)])
def test_every_budget_is_exact_and_ascending(rows: int, cols: int) -> None:
    for keep in range(1, rows * cols + 1):
        found = lattice(keep, rows, cols)
        assert len(found) == keep
        assert (found.diff() > 0).all()
        assert found[0] >= 0 and found[-1] < rows * cols


def test_square_budgets_are_the_lattice() -> None:
    for side in (1, 2, 3, 4, 6, 8, 12, 24):
        at = [(2 * i + 1) * 24 // (2 * side) for i in range(side)]
        assert lattice(side * side, 24, 24).tolist() == [24 * y + x for y in at for x in at]


@pytest.mark.parametrize("keep", [192, 128, 64, 100])
def test_no_hole_is_much_larger_than_the_distance(keep: int) -> None:
    found = lattice(keep, 24, 24)
    points = torch.stack([found // 24, found % 24], dim=1).float()
    every = torch.cartesian_prod(torch.arange(24.0), torch.arange(24.0))
    holes = torch.cdist(every, points).amin(dim=1).max().item()
    assert holes <= math.sqrt(576 / keep) + 0.5


def test_stride_keeps_what_the_formula_says(case: Case) -> None:
    inputs = case.prompts.rows(1)
    method = prunus.Uniform(keep=5, pattern="stride")
    with prunus.prune(case.model, method) as run, torch.no_grad():
        case.model(**inputs)
    count = run.trace[0].grid[0][0].size
    wanted = [math.floor((i + 0.5) * count / 5) for i in range(5)]
    assert run.trace[0].kept[0][0].tolist() == wanted


def test_unknown_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="lattice or stride"):
        prunus.Uniform(pattern="hexagonal")
