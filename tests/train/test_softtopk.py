"""Soft top-k against Sinkhorn, finite differences, and what it promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prunus.train.softtopk import soft_topk


def sinkhorn(scores: list[float], count: float, temperature: float) -> list[float]:
    """Mass at anchor 1 of each token, by Sinkhorn's iteration on the entropic transport problem of
    Xie et al.: tokens of mass 1, anchors 0 and 1 of mass N - k and k, squared cost."""
    kernel = [[math.exp(-((s - a) ** 2) / temperature) for a in (0.0, 1.0)] for s in scores]
    masses, v = (len(scores) - count, count), [1.0, 1.0]
    for _ in range(100_000):
        u = [1 / sum(k * w for k, w in zip(row, v, strict=True)) for row in kernel]
        new = [
            mass / sum(own * row[anchor] for own, row in zip(u, kernel, strict=True))
            for anchor, mass in enumerate(masses)
        ]
        moved = max(abs(math.log(a / b)) for a, b in zip(v, new, strict=True))
        v = new
        if moved < 1e-13:
            return [own * row[1] * v[1] for own, row in zip(u, kernel, strict=True)]
    raise AssertionError("Sinkhorn did not converge")


def random_scores(
    rows: int, tokens: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, tokens, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("temperature", [2.0, 0.5, 0.3])
@pytest.mark.parametrize("count", [1.0, 2.5, 6.0])
def test_equals_sinkhorn(count: float, temperature: float) -> None:
    scores = random_scores(2, 8)
    counts = torch.full((2,), count, dtype=torch.float64)
    found = soft_topk(scores, counts, temperature)
    for row, own in zip(found.tolist(), scores.tolist(), strict=True):
        assert row == pytest.approx(sinkhorn(own, count, temperature), abs=1e-6)


@pytest.mark.parametrize("temperature", [2.0, 0.3])
def test_gradient_in_scores_and_count(temperature: float) -> None:
    scores = random_scores(2, 7).requires_grad_()
    count = torch.tensor([2.0, 3.7], dtype=torch.float64, requires_grad=True)
    gone = torch.tensor([[0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0, 0]]).bool()

    def weights(scores: Tensor, count: Tensor) -> Tensor:
        return soft_topk(scores.masked_fill(gone, -torch.inf), count, temperature)

    assert torch.autograd.gradcheck(weights, (scores, count))


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 1e-3), (torch.float64, 1e-9)], ids=["fp32", "fp64"]
)
@pytest.mark.parametrize("temperature", [2.0, 0.1, 1e-3])
def test_sums_to_the_count(temperature: float, dtype: torch.dtype, error: float) -> None:
    scores = random_scores(4, 576, dtype=dtype)
    count = torch.tensor([1.0, 63.4, 192.0, 575.0], dtype=dtype)
    found = soft_topk(scores, count, temperature)
    assert found.dtype == dtype
    assert (found.sum(1) - count).abs().max() < error
    assert bool((found >= 0).all()) and bool((found <= 1).all())


def test_rises_with_the_scores_and_hardens() -> None:
    scores = random_scores(2, 20)
    count = torch.tensor([5.0, 11.0], dtype=torch.float64)
    for temperature in (1.0, 0.1):
        ordered = soft_topk(scores, count, temperature).gather(1, scores.argsort(1))
        assert bool((ordered.diff(dim=1) > 0).all())
    hard = soft_topk(scores, count, 1e-5)
    for row, kept in enumerate((5, 11)):
        best = sorted(range(20), key=lambda n: -float(scores[row, n]))[:kept]
        expected = [float(n in best) for n in range(20)]
        assert hard[row].tolist() == pytest.approx(expected, abs=1e-6)


def test_missing_tokens_weigh_nothing() -> None:
    scores = random_scores(1, 6, dtype=torch.float32)
    padded = torch.cat([scores, torch.full((1, 3), -torch.inf)], 1).requires_grad_()
    count = torch.tensor([2.0], requires_grad=True)
    found = soft_topk(padded, count, 0.5)
    assert found[0, 6:].tolist() == [0.0] * 3
    assert torch.allclose(found[:, :6], soft_topk(scores, count, 0.5), atol=1e-6)
    (found * torch.arange(9)).sum().backward()
    assert bool(padded.grad.isfinite().all()) and bool(count.grad.isfinite().all())
    assert padded.grad[0, 6:].tolist() == [0.0] * 3
    assert float(padded.grad.abs().max()) > 0


@pytest.mark.parametrize("temperature", [1e-6, 1e-2, 1.0, 1e6])
@pytest.mark.parametrize("scale", [0.0, 1e-8, 1.0, 1e6])
def test_gradients_stay_finite(scale: float, temperature: float) -> None:
    scores = (random_scores(2, 30, dtype=torch.float32) * scale).requires_grad_()
    count = torch.tensor([3.0, 28.5], requires_grad=True)
    found = soft_topk(scores, count, temperature)
    (found * random_scores(2, 30, 1, torch.float32)).sum().backward()
    for one in (found, scores.grad, count.grad):
        assert bool(one.isfinite().all())


def test_the_mean_moves_nothing() -> None:
    """A shift of all scores changes no weight, so no gradient may push that way."""
    scores = random_scores(1, 9).requires_grad_()
    count = torch.tensor([4.0], dtype=torch.float64)
    found = soft_topk(scores, count, 0.4)
    assert torch.allclose(found, soft_topk(scores + 17, count, 0.4), atol=1e-12)
    (found * torch.arange(9)).sum().backward()
    assert abs(float(scores.grad.sum())) < 1e-12 < float(scores.grad.abs().max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="float32 or float64 scores, not torch"):
        soft_topk(torch.zeros(1, 4, dtype=dtype), torch.ones(1), 1.0)


def test_autocast_does_not_reach_it() -> None:
    scores, count = random_scores(1, 9, dtype=torch.float32), torch.tensor([4.0])
    with torch.autocast("cpu", torch.bfloat16):
        found = soft_topk(scores, count, 0.4)
    assert torch.equal(found, soft_topk(scores, count, 0.4))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature="):
        soft_topk(torch.zeros(1, 4), torch.ones(1), temperature)
