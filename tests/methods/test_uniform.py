"""Uniform: exactly as many as asked for, and evenly in both directions."""

from __future__ import annotations

import math

import pytest
import torch

import prunus
from prunus.pruners.uniform import lattice, lattice_among
from tests.support.models import Case


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


# -- behind a method that drops or merges ----------------------------------------------------------


def literal(present: list[int], keep: int, rows: int, cols: int) -> list[int]:
    """The survivors of the lattice, then one after the other in the largest hole."""
    points = lattice(keep, rows, cols).tolist()

    def distance(a: int, b: int) -> int:
        return (a // cols - b // cols) ** 2 + (a % cols - b % cols) ** 2

    taken = [token for token in present if token in points]
    if not taken:
        taken = [min(present, key=lambda token: (distance(token, points[0]), token))]
    filled: list[int] = []
    while len(taken) < keep:

        def hole(token: int) -> tuple[int, int, int]:
            own = min((distance(token, other) for other in filled), default=10**6)
            return min(distance(token, other) for other in taken), own, -token

        best = max((token for token in present if token not in taken), key=hole)
        taken.append(best)
        filled.append(best)
    return sorted(taken)


@pytest.mark.parametrize(("rows", "cols"), [(6, 6), (1, 9), (9, 1), (1, 1), (2, 7)])
def test_among_survivors_equals_the_loop(rows: int, cols: int) -> None:
    size = rows * cols
    generator = torch.Generator().manual_seed(rows)
    for left in range(1, size + 1):
        several = [torch.randperm(size, generator=generator)[:left].sort().values for _ in range(3)]
        present = torch.stack(several)
        for keep in range(1, left + 1):
            taken = lattice_among(present, keep, rows, cols)
            for row in range(3):
                expected = literal(present[row].tolist(), keep, rows, cols)
                assert present[row][taken[row]].tolist() == expected


def test_among_all_tokens_it_is_the_lattice() -> None:
    everyone = torch.arange(24 * 24)[None]
    for keep in (1, 64, 100, 192, 576):
        taken = lattice_among(everyone, keep, 24, 24)[0]
        assert taken.nonzero().flatten().tolist() == lattice(keep, 24, 24).tolist()


@pytest.mark.parametrize("kind", ["random", "half", "columns"])
def test_what_is_kept_of_survivors_is_even(kind: str) -> None:
    """No survivor is farther from a kept token than on a lattice of twice the distance."""
    left = (
        {
            "random": torch.randperm(576, generator=torch.Generator().manual_seed(0))[:288],
            "half": torch.arange(288, 576),
            "columns": torch.arange(0, 576, 2),
        }[kind]
        .sort()
        .values
    )
    kept = left[lattice_among(left[None], 64, 24, 24)[0]]
    at, own = (torch.stack([t // 24, t % 24], 1).float() for t in (left, kept))
    assert len(kept) == 64
    assert torch.cdist(at, own).amin(1).max() <= 3.5
    # Every quarter of what is left keeps its share, within a third.
    shares = [int(torch.isin(quarter, kept).sum()) for quarter in left.chunk(4)]
    assert min(shares) >= 16 * 2 / 3 and max(shares) <= 16 * 4 / 3


@pytest.mark.parametrize("before", [prunus.Random(keep=0.4, layer=0), prunus.EvoPrune(keep=0.5)])
def test_a_lattice_behind_others_is_one_of_the_original_grid(
    case: Case, before: prunus.Method
) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, [before, prunus.Uniform(keep=4)]) as run, torch.no_grad():
        case.model(**inputs)
    first, second = run.trace
    for row, sample in enumerate(second.kept):
        for image, kept in enumerate(sample):
            left, grid = first.kept[row][image].tolist(), second.grid[row][image]
            assert kept.tolist() == literal(left, 4, grid.frames * grid.rows, grid.cols)
