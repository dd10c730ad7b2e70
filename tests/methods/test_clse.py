"""CLSE against a slow, literal reading of its formulas on the unmodified model's own states."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE
from tests.support.facts import counts
from tests.support.literal.clse import best, first_stage, literal_intensity, states_and_attention
from tests.support.models import Case


def literal_gate(values: list[float], temperature: float) -> list[float]:
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return [1 / (1 + math.exp(-(v - mean) / (deviation + 1e-6) / temperature)) for v in values]


@pytest.mark.parametrize(("reference", "layer"), [(0, 1), (0, 3), (2, 3)])
@pytest.mark.parametrize("cutoff", [0.1, 0.2, 0.0])
def test_paper_variant(case: Case, reference: int, layer: int, cutoff: float) -> None:
    inputs = case.prompts.rows(2, 1)
    hidden, _ = states_and_attention(case, inputs)
    method = CLSE(keep=5, reference=reference, layers=(layer,), cutoff=cutoff)
    with prunus.prune(case.model, method) as run, torch.no_grad():
        case.model(**inputs)
    grids = case.prompts.grids(inputs)
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            states = hidden[layer][row, places], hidden[reference][row, places]
            expected = literal_intensity(*states, grids[row][image], cutoff)
            kept, scores = first_stage(run, row, image)
            assert scores == pytest.approx(expected, abs=1e-5)
            assert kept == best(scores, 5)


@pytest.mark.parametrize("variant", ["hybrid", "released"])
def test_first_stage_of_the_attention_variants(case: Case, variant: Any) -> None:
    inputs = case.prompts.rows(2, 1)
    hidden, attention = states_and_attention(case, inputs)
    with prunus.prune(case.model, CLSE(keep=9, variant=variant)) as run, torch.no_grad():
        case.model(**inputs)
    grids = case.prompts.grids(inputs)
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            states = hidden[1][row, places], hidden[0][row, places]
            intensity = literal_intensity(*states, grids[row][image], 0.1)
            row_attention = attention[0][row, :, -1, places].mean(0).tolist()
            gates = literal_gate(intensity, 0.1)
            expected = [g * a for g, a in zip(gates, row_attention, strict=True)]
            kept, scores = first_stage(run, row, image)
            assert scores == pytest.approx(expected, rel=1e-3, abs=1e-6)
            assert kept == best(scores, 9 if variant == "hybrid" else 15)


def test_later_released_stages_use_attention_among_survivors(case: Case) -> None:
    inputs = case.prompts.rows(1)
    with prunus.prune(case.model, CLSE(keep=9, variant="released")) as run, torch.no_grad():
        case.model(**inputs)
    counts = [len(entry.kept[0][0]) for entry in run.trace]
    assert counts == [9 * 330 // 192, 9 * 210 // 192, 9 * 62 // 192] == [15, 9, 2]
    assert [entry.layer for entry in run.trace] == [1, 2, 4]  # ceil(11 * 5 / 32), ceil(21 * 5 / 32)
    for before, entry in zip(run.trace, run.trace[1:], strict=False):
        scores = entry.scores[0][0]
        alive = (~scores.isnan()).nonzero().flatten()
        assert torch.equal(alive, before.kept[0][0])
        ranked = best(scores[alive].tolist(), len(entry.kept[0][0]))
        assert torch.equal(entry.kept[0][0], alive[ranked])


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(192, (330, 210, 62)), (128, (220, 140, 41)), (64, (110, 70, 20)), (1 / 3, (330, 210, 62))],
)
def test_released_schedule_of_the_published_budgets(keep: float, expected: tuple[int, ...]) -> None:
    method = CLSE(keep=keep, variant="released")
    assert counts(method, 576, 32) == expected


@pytest.mark.parametrize(
    ("depth", "expected"), [(32, (1, 11, 21)), (28, (1, 10, 19)), (40, (1, 14, 27))]
)
def test_released_layers_scale_with_depth(depth: int, expected: tuple[int, ...]) -> None:
    cuts = CLSE(variant="released").cuts(depth)
    assert tuple(cut.layer for cut in cuts) == expected
    assert all(cut.trim_cache for cut in cuts)


def test_published_true_averages_of_the_released_schedule() -> None:
    # Specification section 2: 208.1, 144.6 and 81.1 visual tokens per layer, not 192, 128, 64.
    for keep, expected in ((192, 208.1), (128, 144.6), (64, 81.1)):
        method = CLSE(keep=keep, variant="released")
        there, cuts = [576.0] * 32, method.cuts(32)
        for stage, cut in enumerate(cuts):
            assert cut.layer is not None
            for layer in range(cut.layer, 32):
                there[layer] = counts(method, 576, 32)[stage]
        assert sum(there) / 32 == pytest.approx(expected, abs=0.05)


def test_attention_control_has_the_same_schedule(case: Case) -> None:
    inputs = case.prompts.rows(1)
    _, attention = states_and_attention(case, inputs)
    control = CLSE(keep=9, variant="released", score_type="attn")
    with prunus.prune(case.model, control) as run, torch.no_grad():
        case.model(**inputs)
    places = case.prompts.spots(inputs["input_ids"])[0][0]
    expected = attention[0][0, :, -1, places].mean(0).tolist()
    assert first_stage(run, 0, 0)[1] == pytest.approx(expected, abs=1e-6)
    assert [len(entry.kept[0][0]) for entry in run.trace] == [15, 9, 2]


def test_the_paper_variant_does_not_depend_on_the_question(case: Case) -> None:
    inputs = case.prompts.rows(1)
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][:, -4:] += 3
    kept = []
    for prompt in (inputs, other):
        with prunus.prune(case.model, CLSE(keep=6)) as run, torch.no_grad():
            case.model(**prompt)
        kept.append(run.trace[0].kept[0][0])
    assert torch.equal(*kept)


def test_keeping_more_than_there_is_keeps_all(case: Case) -> None:
    inputs = case.prompts.rows(1)
    tokens = len(case.prompts.spots(inputs["input_ids"])[0][0])
    for variant in ("paper", "released"):
        with prunus.prune(case.model, CLSE(keep=tokens + 9, variant=variant)) as run:
            with torch.no_grad():
                case.model(**inputs)
        assert all(len(entry.kept[0][0]) == tokens for entry in run.trace)
        assert not run.report()["pruned"]


def test_a_constant_image_gives_a_deterministic_choice(case: Case) -> None:
    inputs = case.prompts.rows(1)
    inputs |= {name: torch.zeros_like(one) for name, one in inputs.items() if "pixel" in name}
    for variant in ("paper", "hybrid", "released"):
        chosen = []
        for _ in range(2):
            with prunus.prune(case.model, CLSE(keep=5, variant=variant)) as run, torch.no_grad():
                assert torch.isfinite(case.model(**inputs).logits).all()
            chosen.append([entry.kept[0][0].tolist() for entry in run.trace])
        assert chosen[0] == chosen[1]
