"""OTPrune against determinants of a kernel written out channel by channel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import prunus
from prunus.grid import Grid
from prunus.pruners.otprune import OTPrune
from tests.support.entering import entering, view_by_hand
from tests.support.facts import asks, counts
from tests.support.literal.dpp import literal_greedy
from tests.support.models import Case
from tests.support.towers import deep, prompt


def literal(tokens: Tensor, count: int, weight: float = 0.01) -> list[int]:
    """In the order of picking, of projected ``[n, D]`` of one image."""
    rows = tokens.double().tolist()
    size, channels = len(rows), len(rows[0])
    norms = [math.sqrt(sum(row[c] ** 2 for row in rows)) for c in range(channels)]
    made = [[row[c] / norms[c] for c in range(channels)] for row in rows]
    gram = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in made] for x in made]
    kernel = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            kernel[i, j] = (i == j) + weight * sum(gram[i][k] * gram[j][k] for k in range(size))
    return literal_greedy(kernel, count)


def test_channels_are_normalised_and_not_tokens() -> None:
    """The first is alone in its channel; as a vector of length 1 it is like any other."""
    tokens = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert literal(tokens, 1) == [2]
    answer = OTPrune(keep=1).select(0, view_by_hand(1, Grid(1, 1, 3, (8, 8)), tokens))
    assert answer.kept.tolist() == [[2]]  # type: ignore[union-attr]


@pytest.mark.parametrize("keep", [1, 4, 9])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_keeps_what_determinants_say(kind: str, keep: int) -> None:
    case, inputs = deep(kind), prompt(2)
    run, _ = entering(case, OTPrune(keep=keep), inputs)
    with torch.no_grad():
        features = case.model.model.get_image_features(inputs["pixel_values"]).pooler_output
    for image, own in enumerate(features):
        assert run.trace[0].kept[0][image].tolist() == sorted(literal(own, keep))


def test_images_of_a_batch_and_videos(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    run, _ = entering(case, OTPrune(keep=4, weight=0.3), inputs)
    _, dense = entering(case, OTPrune(keep=1.0), inputs)
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            wanted = sorted(literal(dense[row, places], 4, 0.3))
            assert run.trace[0].kept[row][image].tolist() == wanted


def test_the_published_order_is_that_of_a_set(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    [[places]] = llava.prompts.spots(inputs["input_ids"])
    start = places[0]
    method = OTPrune(keep=6, order="published")
    run, states = entering(llava, method, inputs, positions="compact")
    _, dense = entering(llava, OTPrune(keep=1.0), inputs)
    read = list(set(literal(dense[0, places], 6)))  # as published code reads it
    assert torch.equal(states[0, start : start + 6], dense[0, [places[n] for n in read]])
    assert run.trace[0].kept[0][0].tolist() == sorted(read)
    large = torch.arange(600.0).flip(0)[:, None] * torch.eye(600)  # a set of large numbers
    view = view_by_hand(300, Grid(1, 20, 30, (8, 8)), large + torch.eye(600))
    [order] = OTPrune(keep=300, order="published").select(0, view).order  # type: ignore[misc]
    assert sorted(order.tolist()) == list(range(300))


def test_facts_and_costs(llava: Case) -> None:
    assert not asks(OTPrune()) and counts(OTPrune(), 576) == (56,)
    with prunus.prune(llava.model, OTPrune(keep=4)) as run, torch.no_grad():
        llava.model(**llava.prompts.rows(1))
    products = 16 * 16 * 64 + 16**3 + 16 * (1 + 2 + 3)
    assert run.report()["flops"]["pruned"]["method"] == 2 * products
    with pytest.raises(ValueError, match="weight=0.0: give a number above 0"):
        OTPrune(weight=0.0)
