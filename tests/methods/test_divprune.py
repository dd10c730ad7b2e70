"""DivPrune against a literal reading of its loop, on projected features of the unmodified model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import prunus
from prunus import EvoPrune
from prunus.grid import Grid
from prunus.pruners.divprune import DivPrune
from prunus.signals.diversity import max_min
from tests.support.entering import entering, view_by_hand
from tests.support.models import Case, case_of
from tests.support.runs import gap, plain
from tests.support.towers import deep, prompt


def literal(features: Tensor, count: int) -> list[int]:
    """Indices in the order in which they are picked."""
    size = len(features)
    unit = [row / row.norm() for row in features.double()]
    away = [[1 - float(unit[i] @ unit[j]) for j in range(size)] for i in range(size)]
    picked: list[int] = []
    while len(picked) < count:
        best, most = -1, -math.inf
        for i in range(size):
            if i in picked:
                continue
            others = picked or [j for j in range(size) if j != i]
            nearest = min((away[i][j] for j in others), default=0.0)
            if nearest > most:
                best, most = i, nearest
        picked.append(best)
    return picked


def at_angles(*degrees: float) -> Tensor:
    turns = torch.tensor(degrees).deg2rad()
    return torch.stack([turns.cos(), turns.sin()], 1)


def test_the_published_example() -> None:
    vectors = at_angles(0, 10, 50, 100)
    assert literal(vectors, 3) == [3, 0, 2]
    order, _ = max_min(1 - (vectors @ vectors.T)[None], 3)
    assert order.tolist() == [[3, 0, 2]]
    answer = DivPrune(keep=3).select(0, view_by_hand(3, Grid(1, 2, 2, (8, 8)), vectors * 3))
    assert answer.kept.tolist() == [[0, 2, 3]]  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [1, 2, 7, 19, 30])
def test_picks_in_the_literal_order(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    features = torch.randn(3, 30, 6, generator=generator)
    unit = torch.nn.functional.normalize(features, dim=-1)
    order, _ = max_min(1 - unit @ unit.transpose(1, 2), count)
    assert order.tolist() == [literal(own, count) for own in features]


def test_equal_tokens_are_picked_once_and_from_the_first_on() -> None:
    for vectors in (at_angles(20, 20, 20, 20), at_angles(0, 90, 0, 90)):
        order, _ = max_min((1 - vectors @ vectors.T).round(decimals=5)[None], 4)
        assert sorted(order[0].tolist()) == [0, 1, 2, 3]
        assert order[0, 0] == 0 and order[0].tolist() == [0, 1, 2, 3]


def test_one_token() -> None:
    assert max_min(torch.zeros(2, 1, 1), 1)[0].tolist() == [[0], [0]]


def test_nothing_is_read_from_the_device() -> None:
    order, _ = max_min(torch.zeros(2, 9, 9, device="meta"), 4)
    assert order.shape == (2, 4)


@pytest.mark.parametrize("keep", [1, 3, 11, 35])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_keeps_what_the_literal_loop_picks(kind: str, keep: int) -> None:
    case, inputs = deep(kind), prompt(2)
    run, states = entering(case, DivPrune(keep=keep), inputs)
    with torch.no_grad():
        features = case.model.model.get_image_features(inputs["pixel_values"]).pooler_output
    start = 2
    for image, own in enumerate(features):
        wanted = sorted(literal(own, keep))
        assert run.trace[0].kept[0][image].tolist() == wanted
        assert torch.equal(states[0, start : start + keep], own[wanted])
        start += keep


def test_videos_are_one_input_each() -> None:
    case = case_of("qwen2.5-vl-video")
    inputs = case.prompts.rows(2)
    run, _ = entering(case, DivPrune(keep=7), inputs)
    _, dense = entering(case, DivPrune(keep=1.0), inputs)
    for image, places in enumerate(case.prompts.spots(inputs["input_ids"])[0]):
        assert run.trace[0].kept[0][image].tolist() == sorted(literal(dense[0, places], 7))


def test_behind_a_merge_in_the_tower() -> None:
    """Of what EvoPrune left, by its projected features."""
    case, inputs = deep(), prompt(2)
    first = EvoPrune(keep=15)
    alone, states = entering(case, first, inputs)
    run, _ = entering(case, [first, DivPrune(keep=6)], inputs)
    for image in range(2):
        left = alone.trace[0].kept[0][image].tolist()
        own = states[0, 2 + 15 * image : 17 + 15 * image]
        assert run.trace[1].kept[0][image].tolist() == sorted(left[n] for n in literal(own, 6))


def test_published_count_and_features_computed_before(llava: Case) -> None:
    from tests.support.facts import counts

    assert counts(DivPrune(), 576) == counts(DivPrune(**DivPrune.presets["paper"]), 576) == (56,)
    inputs = llava.prompts.rows(1)
    with torch.no_grad():
        outside = llava.model.model.get_image_features(inputs["pixel_values"])
        with prunus.prune(llava.model, DivPrune(keep=5)):
            found = llava.model(
                input_ids=inputs["input_ids"], mm_encoder_outputs={"image": outside}
            ).logits
            assert gap(found, plain(llava.model, inputs)) == 0
    with pytest.raises(ValueError, match="keep=0"):
        DivPrune(keep=0)
