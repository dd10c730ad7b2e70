"""What fails when the paper is taken literally, and that it does not in the arm that is mended.

The numbers are those of the derivations in docs/stepwise.md.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from prunus.selector.config import SelectorConfig, TrainSettings
from prunus.selector.pointer import Pointer
from prunus.train.relax import aggregated_log_scores, log_alive, soft_length, standardised
from prunus.train.softtopk import soft_topk
from tests.support.models import Case
from tests.support.objective import STATE, alphas, batch_of, objective_for
from tests.support.random_selectors import random_selector

TOKENS = 576


def ideal(steps: int) -> Tensor:
    """Log scores ``[576]`` of a pointer that is sure at each of its ``steps``: token t at step t,
    STOP never."""
    log_probs = torch.full((1, steps, TOKENS + 1), -math.inf)
    log_probs[0, range(steps), range(steps)] = 0.0
    ran = torch.ones(1, steps, dtype=torch.bool)
    return aggregated_log_scores(log_probs, ran, "full", 0.9)[0]


def weights(scores: Tensor, count: int, temperature: float) -> Tensor:
    return soft_topk(scores[None], torch.tensor([float(count)]), temperature)[0]


def mended(scores: Tensor) -> Tensor:
    return standardised(scores[None], torch.ones(1, TOKENS, dtype=torch.bool))[0]


def at(alpha: Tensor, *ranks: int) -> list[float]:
    return [float(alpha[rank - 1]) for rank in ranks]


def test_raw_scores_underflow() -> None:
    """0.9^t of later steps is nothing beside that of the first."""
    raw = ideal(192).exp()
    assert float(raw[191]) == pytest.approx(1.6e-9, rel=0.05)
    # A sharpness of 0.01 in units of the squared cost: tokens 100 (picked) and 500 (not).
    picked, lost = at(weights(raw, 192, 0.01), 100, 500)
    assert picked - lost < 2e-3 and 0.2 < picked < 0.4
    for count in (64, 192):  # ten times sharper the last of them are still lost
        picked, lost = at(weights(raw, count, 1e-3), count, 500)
        assert picked - lost < 0.4


def test_log_scores_separate_what_was_picked() -> None:
    for count in (64, 128, 192):
        alpha = weights(mended(ideal(192)), count, 0.1)
        assert min(at(alpha, 1, count // 2, count - 20)) > 0.98
        assert max(at(alpha, count + 20, 500)) < 0.03
        assert float(alpha.sum()) == pytest.approx(count, abs=1e-2)


@pytest.mark.parametrize(
    ("count", "raw", "logs"),
    [
        (64, [1.0, 1.0, 0.64, 0.06, 0.055, 0.055], None),
        (192, [1.0, 1.0, 0.92, 0.31, 0.28, 0.28], [1.0, 0.998, 0.51, 0.003]),
    ],
)
def test_the_numbers_of_the_derivation(count: int, raw: Any, logs: Any) -> None:
    """They are for ``sigmoid(s / epsilon - c)``: half as sharp as the squared cost is."""
    scores = ideal(288)
    found = at(weights(scores.exp(), count, 0.02), 1, 16, 32, 64, 128, 500)
    assert found == pytest.approx(raw, abs=6e-3)
    if logs:
        assert at(weights(mended(scores), count, 0.2), 100, 128, 192, 250) == pytest.approx(
            logs, abs=6e-3
        )


@pytest.mark.parametrize(("count", "felt"), [("mean", False), ("sample", True)])
def test_its_own_length_must_feel_the_answer(llava: Case, count: Any, felt: bool) -> None:
    """With the batch's mean count the weights of a sample sum to the same whatever STOP does: the
    language model's loss never asks for more tokens."""
    objective = objective_for(llava, count=count, selector={"min_steps": 1})
    pointer = objective.selector.pointer
    assert pointer is not None
    with alphas(objective) as seen:
        objective(batch_of(llava, 1, 1), STATE)
    (slope,) = torch.autograd.grad(seen[0].sum(), pointer.stop_bias, retain_graph=True)
    assert (abs(float(slope)) > 1e-2) == felt
    assert abs(float(slope)) < 1e-5 or float(slope) < 0  # a larger STOP, fewer tokens


def stopping_then_pointing() -> Tensor:
    """Log probabilities ``[1, 6, 5]`` over 4 tokens and STOP: the third step picks STOP with only
    0.4; the steps behind it point at token 3."""
    early, stop, late = [0.7, 0.1, 0.0, 0.0, 0.2], [0.2, 0.2, 0.1, 0.1, 0.4], [0, 0, 0, 1.0, 0]
    return torch.tensor([[early, early, stop, late, late, late]]).log()


def test_mass_behind_the_hard_stop_is_left_out() -> None:
    log_probs = stopping_then_pointing()
    ran = torch.tensor([[True, True, True, False, False, False]])
    kept = aggregated_log_scores(log_probs, ran, "full", 0.9).exp()[0]
    literal = aggregated_log_scores(log_probs, torch.ones_like(ran), "full", 0.9).exp()[0]
    assert int(literal.argsort()[-2]) == 3  # a token that was never picked comes second
    assert float(kept[3]) < 0.1 < float(literal[3]) and int(kept[:3].argmax()) == 0
    assert float(soft_length(log_probs[..., -1].exp(), ran)) < 3


def test_a_sample_that_has_stopped_is_untouched_by_its_neighbours() -> None:
    """In a batch it goes on beside longer ones; its scores are those it has alone."""
    generator = torch.Generator().manual_seed(0)
    pointer = random_selector(1).pointer
    assert pointer is not None
    rows = torch.randn(6, 9, 8, generator=generator)
    with torch.no_grad():
        together = pointer.unroll(pointer.memory(rows, torch.ones(6, 9).bool()), [8] * 6)
        scores = aggregated_log_scores(together.log_probs, together.ran, "full", 0.9)
        for row in range(6):
            memory = pointer.memory(rows[row : row + 1], torch.ones(1, 9).bool())
            alone = pointer.unroll(memory, [8])
            own = aggregated_log_scores(alone.log_probs, alone.ran, "full", 0.9)[0]
            assert torch.allclose(scores[row], own, atol=1e-4)
    assert len(set(together.counts.tolist())) > 2
    longer = aggregated_log_scores(together.log_probs, torch.ones_like(together.ran), "full", 0.9)
    assert float((longer - scores).max()) > 0.1


def pointer_of(arm: Any) -> Pointer:
    """A pointer of an arm's own settings, as it is when training starts."""
    torch.manual_seed(0)
    chosen = TrainSettings(arm=arm).selector
    return Pointer(SelectorConfig(12, 10, width=16, heads=2, **chosen))


def pointing_at_stop(pointer: Pointer) -> Pointer:
    """STOP wins every step in which it may."""
    with torch.no_grad():
        pointer.stop_bias.fill_(50.0)
    return pointer


def test_nothing_kept_is_possible_literally() -> None:
    rows = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(0))
    every = torch.ones(2, 24, dtype=torch.bool)
    counts = {}
    for arm in ("literal", "stable"):
        pointer = pointing_at_stop(pointer_of(arm))
        memory = pointer.memory(rows, every)
        steps = pointer.unroll(memory, [12, 12])
        assert pointer.pick(memory, [12, 12]).counts.tolist() == steps.counts.tolist()
        counts[arm] = steps.counts.tolist()
        scores = aggregated_log_scores(steps.log_probs, steps.ran, "full", 0.9)
        alpha = soft_topk(
            standardised(scores, every), steps.counts.float().clamp_min(0.5), STATE.temperature
        )
        alpha.square().sum().backward()
        gradients = [weight.grad for weight in pointer.parameters()]
        assert bool(alpha.isfinite().all())
        assert all(one is None or bool(one.isfinite().all()) for one in gradients)
    assert counts == {"literal": [0, 0], "stable": [8, 8]}


def test_stop_starts_out_unlikely_only_where_it_is_mended() -> None:
    rows = torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(0))
    chance = {}
    for arm in ("literal", "stable"):
        pointer = pointer_of(arm)
        memory = pointer.memory(rows, torch.ones(1, 24, dtype=torch.bool))
        with torch.no_grad():
            chance[arm] = pointer.unroll(memory, [12]).log_probs[0, :, -1].exp().max()
    assert float(chance["literal"]) > 0.02 and float(chance["stable"]) < 0.01


@pytest.mark.parametrize("p", [1e-8, 1e-6, 0.01, 0.5, 0.999, 1 - 1e-6])
def test_products_of_many_steps_in_log_space(p: float) -> None:
    stop = torch.full((1, 288), p)
    found = log_alive(stop)[0].double()
    exact = torch.log1p(-stop[0].double()) * torch.arange(288)  # of the same float32 p
    assert bool(found.isfinite().all())
    assert torch.allclose(found, exact, rtol=1e-4, atol=0)
    naive = torch.cat([torch.ones(1), (1 - stop[0]).cumprod(0)[:-1]]).log().double()
    if p in (1e-8, 0.999):
        assert not torch.allclose(naive, exact, rtol=1e-4, atol=0)


def test_soft_top_k_in_half_precision_would_lose_its_count() -> None:
    scores = torch.randn(1, TOKENS, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="not torch.bfloat16"):
        soft_topk(scores.bfloat16(), torch.tensor([192.0]), 0.1)
