"""Diversity, best partners and attention received, against loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from prunus.signals.attention import column_mean
from prunus.signals.density import density_peaks, diversity
from prunus.signals.similarity import best_partners, unit
from tests.support.literal.density import literal_diversity, literal_peaks


@pytest.mark.parametrize("tau", ["auto", 0.7])
@pytest.mark.parametrize("budget", [30, 10**6])
def test_diversity(tau: Any, budget: int) -> None:
    vectors = unit(torch.randn(2, 13, 6, generator=torch.Generator().manual_seed(1)))
    found = diversity(vectors, 4, tau, budget)
    for row in range(2):
        expected = literal_diversity(vectors[row].tolist(), 4, tau)
        assert found[row].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_loner_is_more_diverse_than_a_crowd() -> None:
    crowd = torch.tensor([1.0, 0.0, 0.0]) + 0.01 * torch.randn(8, 3)
    found = diversity(unit(torch.cat([crowd, torch.tensor([[0.0, 1.0, 0.0]])])[None]), 3, "auto")[0]
    assert found.argmax() == 8 and found[8] > 0.99


def test_fewer_tokens_than_neighbours_and_equal_tokens() -> None:
    assert diversity(unit(torch.randn(1, 1, 4)), 5, "auto").tolist() == [[0.0]]
    same = unit(torch.ones(1, 6, 4))
    assert diversity(same, 5, "auto")[0].tolist() == pytest.approx([0.0] * 6, abs=1e-3)
    assert diversity(unit(torch.randn(1, 3, 4)), 5, 1.0).shape == (1, 3)


@pytest.mark.parametrize("budget", [20, 10**6])
def test_best_partners(budget: int) -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = (unit(torch.randn(2, n, 5, generator=generator)) for n in (7, 6))
    wa, wb = (torch.rand(2, n, generator=generator) for n in (7, 6))
    ba, bb = (torch.rand(2, n, generator=generator) < 0.4 for n in (7, 6))
    bb[1] = True  # no free pair at all in the second image
    scores, partners = best_partners(a, b, (wa, wb), (ba, bb), budget)
    for g in range(2):
        for i in range(7):
            row = []
            for j in range(6):
                value = (1 + float(a[g, i] @ b[g, j])) / 2 * float(wa[g, i]) * float(wb[g, j])
                row.append(value - 2 if ba[g, i] or bb[g, j] else value)
            assert float(scores[g, i]) == pytest.approx(max(row), abs=1e-6)
            assert int(partners[g, i]) == row.index(max(row))
    assert (scores[1] < 0).all()


def literal_mean(query: Tensor, key: Tensor, scaling: float, bias: Tensor | None) -> Tensor:
    logits = query @ key.transpose(-1, -2) * scaling
    if bias is not None:
        logits = logits + bias[:, None, None, :]
    return logits.softmax(-1).mean((1, 2))


@pytest.mark.parametrize("budget", [50, 33 * 33 * 3, None])
@pytest.mark.parametrize("with_bias", [False, True])
def test_column_means(budget: int | None, with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    query, key = (torch.randn(2, 4, 33, 8, generator=generator) for _ in range(2))
    bias = torch.rand(2, 33, generator=generator) if with_bias else None
    found = column_mean(query, key, 0.3, bias, budget)
    assert (found - literal_mean(query, key, 0.3, bias)).abs().max() < 1e-6
    assert found.std() > 1e-3  # the mean over keys would be 1/33 everywhere
    half = column_mean(query.bfloat16(), key.bfloat16(), 0.3, bias, budget)
    assert half.dtype == torch.float32


@pytest.mark.parametrize(("tokens", "count"), [(40, 5), (12, 2), (9, 1), (3, 3), (1, 1)])
def test_density_peaks(tokens: int, count: int) -> None:
    states = torch.randn(tokens, 6, generator=torch.Generator().manual_seed(tokens))
    peaks, nearest = density_peaks(states, count)
    expected, owners = literal_peaks(states.tolist(), count)
    assert peaks.tolist() == expected and nearest.tolist() == owners


def test_density_peaks_of_equal_and_of_distant_tokens() -> None:
    peaks, nearest = density_peaks(torch.ones(40, 8), 4)  # all alike: the first ones
    assert peaks.tolist() == [0, 1, 2, 3] and nearest.tolist() == [0, 1, 2, 3] + [0] * 36
    # Two heaps far from the origin, 1e-3 wide: products of rows would not tell them apart.
    heaps = torch.full((30, 4), 100.0)
    heaps[15:] += 0.01
    heaps += 1e-3 * torch.rand(30, 4, generator=torch.Generator().manual_seed(1))
    peaks, nearest = density_peaks(heaps, 2)
    assert sorted(int(peak) // 15 for peak in peaks) == [0, 1]
    assert len(set(nearest[:15].tolist())) == 1 and len(set(nearest[15:].tolist())) == 1
