"""From probabilities of steps to scores and lengths: literal sums over steps and tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from prunus.train.relax import aggregated_log_scores, log_alive, soft_length, standardised

BETA = 0.9
FLOOR = 1e-14


def steps_of(
    seed: int = 0, batch: int = 3, steps: int = 6, tokens: int = 7
) -> tuple[Tensor, Tensor]:
    """Log probabilities ``[B, T, N + 1]`` in float64 as a pointer makes them (slots picked before
    and, in the first two steps, STOP are masked), and the steps that ran: 6, 4 and 1 of them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, steps, tokens + 1, generator=generator, dtype=torch.float64) * 2
    logits[:, :2, -1] = -torch.inf
    for step in range(1, steps):  # at step t the tokens 0..t-1 are taken
        logits[:, step, :step] = -torch.inf
    ran = torch.arange(steps) < torch.tensor([6, 4, 1])[:, None]
    return logits.log_softmax(-1), ran


def literal(probs: list[list[float]], ran: list[bool], mode: str) -> list[float]:
    """``s_i = sum_t A_t p_t(i) beta^t``, ``A_t = prod_{u<t} (1 - p_u(STOP))``, t from 1, over the
    steps that ran; or what an ablation leaves of it."""
    scores = [0.0] * (len(probs[0]) - 1)
    last = max(step for step, went in enumerate(ran) if went)
    for i in range(len(scores)):
        for step, p in enumerate(probs):
            alive = 1.0
            for before in range(step):
                alive *= 1 - probs[before][-1]
            weight = {
                "full": alive * BETA ** (step + 1),
                "alive": alive,
                "uniform": 1.0,
                "last": float(step == last),
            }[mode]
            if ran[step]:
                scores[i] += weight * p[i]
    return scores


@pytest.mark.parametrize("mode", ["full", "alive", "uniform", "last"])
def test_scores_are_the_sums(mode: Any) -> None:
    log_probs, ran = steps_of()
    found = aggregated_log_scores(log_probs, ran, mode, BETA)
    for row in range(3):
        expected = literal(log_probs[row].exp().tolist(), ran[row].tolist(), mode)
        floored = [max(value, FLOOR) for value in expected]
        assert found[row].exp().tolist() == pytest.approx(floored, rel=1e-6)


def test_the_modes_differ() -> None:
    log_probs, ran = steps_of()
    found = [aggregated_log_scores(log_probs, ran, m, BETA) for m in ("full", "alive", "uniform")]
    assert len({round(float(one[0].exp().sum()), 6) for one in found}) == 3


def test_steps_behind_the_hard_stop_count_nothing() -> None:
    log_probs, ran = steps_of()
    other = log_probs.clone()
    other[1, 4:] = steps_of(seed=5)[0][1, 4:]
    for mode in ("full", "alive", "uniform", "last"):
        found = [aggregated_log_scores(one, ran, mode, BETA)[1] for one in (log_probs, other)]
        assert torch.equal(*found)
    everything = aggregated_log_scores(log_probs, torch.ones_like(ran), "full", BETA)
    assert bool((everything[1] > aggregated_log_scores(log_probs, ran, "full", BETA)[1]).any())


@pytest.mark.parametrize("mode", ["full", "alive", "uniform", "last"])
def test_gradients_of_the_scores(mode: Any) -> None:
    """Against finite differences of the literal sums, through the softmax that masks slots."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    ran = torch.tensor([[True, True, True, False]])
    weights = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    taken = torch.zeros(1, 4, 4, dtype=torch.bool)
    taken[0, 0, 3] = taken[0, 1:, 2] = True

    def loss(values: Tensor) -> float:
        probs = values.masked_fill(taken, -torch.inf).softmax(-1)[0].tolist()
        sums = literal(probs, ran[0].tolist(), mode)
        return sum(float(w) * math.log(max(s, FLOOR)) for w, s in zip(weights, sums, strict=True))

    log_probs = logits.masked_fill(taken, -torch.inf).log_softmax(-1)
    (aggregated_log_scores(log_probs, ran, mode, BETA)[0] * weights).sum().backward()
    assert logits.grad is not None
    for place in range(logits.numel()):
        moved = []
        for step in (1e-5, -1e-5):
            one = logits.detach().clone()
            one.view(-1)[place] += step
            moved.append(loss(one))
        slope = (moved[0] - moved[1]) / 2e-5
        assert float(logits.grad.view(-1)[place]) == pytest.approx(slope, abs=1e-7)


def test_soft_length_and_its_gradient() -> None:
    log_probs, ran = steps_of()
    stop = log_probs[..., -1].exp().requires_grad_()
    found = soft_length(stop, ran)

    def literal_length(p: list[float], went: list[bool]) -> float:
        total = 0.0
        for step in range(len(p)):
            product = 1.0
            for u in range(step + 1):
                product *= 1 - p[u]
            total += product * went[step]
        return total

    found.sum().backward()
    for row in range(3):
        p, went = stop[row].tolist(), ran[row].tolist()
        assert float(found[row].detach()) == pytest.approx(literal_length(p, went), rel=1e-9)
        for step in range(len(p)):
            up, down = list(p), list(p)
            up[step] += 1e-6
            down[step] -= 1e-6
            slope = (literal_length(up, went) - literal_length(down, went)) / 2e-6
            assert float(stop.grad[row, step]) == pytest.approx(slope, abs=1e-7)


def test_alive_is_the_product() -> None:
    stop = torch.tensor([[0.1, 0.5, 0.0, 0.999]], dtype=torch.float64)
    expected = [1.0, 0.9, 0.9 * 0.5, 0.9 * 0.5]
    assert log_alive(stop)[0].exp().tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("surely", [1.0, 1 - 1e-9, 0.9999999])
def test_a_sure_stop_stays_finite(surely: float) -> None:
    stop = torch.tensor([[0.2, surely, 0.3, surely]], requires_grad=True)
    ran = torch.ones(1, 4, dtype=torch.bool)
    total = log_alive(stop).sum() + soft_length(stop, ran).sum()
    total.backward()
    assert bool(total.isfinite()) and bool(stop.grad.isfinite().all())
    assert bool((log_alive(stop)[0].diff() <= 0).all())


def test_a_sample_that_never_ran() -> None:
    log_probs, ran = steps_of()
    log_probs = log_probs.detach().requires_grad_()
    ran[1] = False
    for mode in ("full", "last"):
        found = aggregated_log_scores(log_probs, ran, mode, BETA)
        assert found[1].tolist() == pytest.approx([math.log(FLOOR)] * 7)
        (gradient,) = torch.autograd.grad(found.sum(), log_probs)
        assert bool(gradient.isfinite().all())
    assert float(soft_length(log_probs[..., -1].exp(), ran)[1].detach()) == 0


def test_standardised_over_the_valid_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 10, generator=generator) * torch.tensor([[1.0], [40.0], [0.05]]) - 20
    valid = torch.arange(10) < torch.tensor([10, 6, 7])[:, None]
    found = standardised(values, valid)
    for row in range(3):
        own = found[row][valid[row]].double()
        assert float(own.mean()) == pytest.approx(0, abs=1e-4)
        assert float((own - own.mean()).square().mean().sqrt()) == pytest.approx(1, abs=1e-2)
        given = values[row][valid[row]]
        assert torch.equal(own.argsort(), given.argsort())
        assert found[row][~valid[row]].tolist() == [-math.inf] * int((~valid[row]).sum())


def test_standardised_equal_values() -> None:
    values = torch.full((1, 5), -32.0, requires_grad=True)
    found = standardised(values, torch.ones(1, 5, dtype=torch.bool))
    assert found.tolist() == [[0.0] * 5]
    (found * torch.arange(5)).sum().backward()
    assert bool(values.grad.isfinite().all())
