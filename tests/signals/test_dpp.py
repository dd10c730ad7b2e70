"""The greedy loop against determinants."""

from __future__ import annotations

import itertools

import pytest
import torch

from prunus.signals.dpp import greedy_map
from tests.support.literal.dpp import determinant, literal_greedy


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_picks_what_determinants_say(count: int) -> None:
    rows = torch.randn(4, 12, 10, generator=torch.Generator().manual_seed(count))
    kernel = rows @ rows.transpose(1, 2)
    picked = greedy_map(kernel, count)
    assert picked.tolist() == [literal_greedy(own, count) for own in kernel]


def test_of_two_vectors_it_is_the_largest_minor() -> None:
    """Where relevance chooses the first and an angle the second."""
    turns = torch.tensor([0.0, 10.0, 50.0, 100.0]).deg2rad()
    rows = torch.stack([turns.cos(), turns.sin()], 1)
    relevance = torch.tensor([0.5, 1.0, 0.6, 0.4])
    kernel = relevance[:, None] * (rows @ rows.T) * relevance
    assert sorted(greedy_map(kernel[None], 2)[0].tolist()) == [1, 3]
    minors = {two: determinant(kernel, two) for two in itertools.combinations(range(4), 2)}
    assert max(minors, key=minors.__getitem__) == (1, 3)
    assert minors[1, 3] == pytest.approx(0.16, abs=5e-3)


def test_where_the_rank_is_spent_the_lowest_index_is_taken() -> None:
    rows = torch.randn(1, 12, 3, generator=torch.Generator().manual_seed(0))
    kernel = rows @ rows.transpose(1, 2)
    picked = greedy_map(kernel, 12)[0].tolist()
    assert picked[:3] == literal_greedy(kernel[0], 3)
    assert picked[3:] == sorted(set(range(12)) - set(picked[:3]))


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("weight", [1.0, 1e-3])
def test_each_token_once_however_long_the_rank_has_been_spent(rank: int, weight: float) -> None:
    """Rounding that is left of spent tokens does not grow from pick to pick."""
    for seed in range(20):
        rows = torch.randn(2, rank, 64, generator=torch.Generator().manual_seed(seed))
        rows = torch.nn.functional.normalize(rows.repeat(1, 96 // rank, 1), dim=2)
        kernel = weight * (rows @ rows.transpose(1, 2))
        count = kernel.shape[1]
        everything = torch.arange(count).expand(2, count)
        picked = greedy_map(kernel, count)
        assert torch.equal(picked.sort(1).values, everything), seed
        assert all(torch.equal(own[rank:].sort().values, own[rank:]) for own in picked), seed


def test_duplicates_come_last_and_nothing_is_nan() -> None:
    rows = torch.eye(4)[[0, 0, 1, 1, 2, 3]]
    picked = greedy_map((rows @ rows.T)[None], 6)[0].tolist()
    assert picked == [0, 2, 4, 5, 1, 3]
    assert greedy_map(torch.zeros(2, 3, 3), 3).tolist() == [[0, 1, 2]] * 2
    assert greedy_map(torch.zeros(2, 3, 3), 0).shape == (2, 0)


def test_images_do_not_know_of_each_other() -> None:
    rows = torch.randn(3, 20, 32, generator=torch.Generator().manual_seed(1))
    kernel = rows @ rows.transpose(1, 2) * torch.tensor([1.0, 1e-4, 1e3])[:, None, None]
    together = greedy_map(kernel, 8)
    assert all(torch.equal(greedy_map(kernel[n : n + 1], 8)[0], together[n]) for n in range(3))


def test_nothing_is_read_from_the_device() -> None:
    assert greedy_map(torch.zeros(2, 5, 5, device="meta"), 3).shape == (2, 3)
