"""HoloV against a literal reading, from the unmodified tower and projector."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from prunus.grid import Grid
from prunus.method.signals import TowerAttention
from prunus.pruners.holov import HoloV
from prunus.signals.crops import crops_of, shared_out
from tests.support.entering import entering, view_by_hand
from tests.support.facts import counts
from tests.support.literal.tower import looked, received_by_frames, share_of
from tests.support.models import case_of as tiny
from tests.support.towers import deep, prompt


def literal(
    attention: list[float], states: Tensor, keep: int, crops: int | None = None
) -> list[list[int]]:
    """For each crop its tokens by falling attention."""
    size = len(attention)
    crops = min(crops or max(1, int(1024 / 576 * size / keep)), size)
    unit = [row / row.norm() for row in states.double()]
    runs, start = [], 0
    for n in range(crops):
        length = size // crops + (1 if n < size % crops else 0)
        runs.append(list(range(start, start + length)))
        start += length
    scores = []
    for run in runs:
        others = max(len(run) - 1, 1)
        looked, variance = [1000 * attention[i] for i in run], []
        for i in run:
            row = [0.0 if i == j else float(unit[i] @ unit[j]) for j in run]
            mean = sum(row) / others
            variance.append(sum((value - mean) ** 2 for value in row) / others)
        level = sum(map(abs, looked)) / len(run) / (sum(map(abs, variance)) / len(run) + 1e-6)
        both = [a + 0.09 * v * level for a, v in zip(looked, variance, strict=True)]
        scores.append(sum(both) / len(run))
    weights = [score / (sum(scores) + 1e-6) for score in scores]
    most = [math.floor(weight * keep) for weight in weights]
    line = sorted(range(crops), key=lambda n: -weights[n])
    for n in line[: keep - sum(most)]:
        most[n] += 1
    over = 0
    for n in line + line:
        over, most[n] = max(0, most[n] + over - len(runs[n])), min(len(runs[n]), most[n] + over)
    return [
        sorted(run, key=lambda i: -attention[i])[:own] for run, own in zip(runs, most, strict=True)
    ]


def by_hand(attention: Tensor, states: Tensor, keep: int, **more: Any) -> tuple[Any, Any]:
    grid = Grid(1, 1, len(attention), (8, 8))
    view = view_by_hand(keep, grid, states=states, attention=attention, sees=(TowerAttention(),))
    answer = HoloV(keep=keep, order="published", **more).select(0, view)
    return answer.kept[0].tolist(), answer.order and answer.order[0].tolist()  # type: ignore


def test_the_published_example() -> None:
    attention = torch.tensor([1.0, 2, 3, 4, 1, 1, 1, 1]) / 14
    kept, order = by_hand(attention, torch.ones(8, 3), 4, crops=2)
    assert kept == [1, 2, 3, 4] and order == [3, 2, 1, 4]


@pytest.mark.parametrize("keep", [1, 3, 9, 30, 46])
@pytest.mark.parametrize("crops", [None, 1, 5, 47])
def test_equals_the_formula(keep: int, crops: int | None) -> None:
    generator = torch.Generator().manual_seed(keep)
    attention = torch.rand(47, generator=generator).pow(4)
    states = torch.randn(47, 6, generator=generator)
    wanted = literal(attention.tolist(), states, keep, crops)
    line = [token for run in wanted for token in run]
    assert len(line) == keep
    assert by_hand(attention, states, keep, crops=crops) == (sorted(line), line)


def test_variance_decides_nothing_in_the_released_formula() -> None:
    """Brought to the mean of the attention, its own mean is that mean, whatever the tokens are."""
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(60, generator=generator)
    found = [by_hand(attention, torch.randn(60, 6, generator=generator), 9) for _ in range(3)]
    assert found[0] == found[1] == found[2]


def test_what_a_crop_cannot_take_goes_to_the_next_by_weight() -> None:
    weights = torch.tensor([[0.05, 0.85, 0.1], [0.2, 0.2, 0.6]])
    sizes = torch.tensor([4, 4, 3])
    assert shared_out(weights, sizes, 8).tolist() == [[1, 4, 3], [4, 1, 3]]
    assert shared_out(weights, sizes, 11).tolist() == [[4, 4, 3]] * 2
    assert shared_out(torch.zeros(1, 3), sizes, 5).tolist() == [[3, 1, 1]]  # no attention at all
    cut = crops_of(11, 3, torch.device("cpu"))
    assert cut.sizes.tolist() == [4, 4, 3] and cut.tokens[2, :3].tolist() == [8, 9, 10]


def test_published_numbers() -> None:
    for keep, crops in ((192, 5), (128, 8), (64, 16)):
        method = HoloV(**HoloV.presets[str(keep)])
        assert counts(method, 576) == (keep,) and max(1, 1024 * 576 // (576 * keep)) == crops
        generator = torch.Generator().manual_seed(keep)
        attention = torch.rand(576, generator=generator)
        states = torch.randn(576, 4, generator=generator)
        found = by_hand(attention, states, keep)
        assert found == by_hand(attention, states, keep, crops=crops)
        assert found != by_hand(attention, states, keep, crops=crops + 1)
    assert counts(HoloV(), 576) == (64,)


@pytest.mark.parametrize("keep", [1, 8, 21])
@pytest.mark.parametrize("order", ["original", "published"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_language_model_reads_what_the_literal_reading_made(
    kind: str, order: Any, keep: int
) -> None:
    case, inputs = deep(kind), prompt(2)
    run, states = entering(case, HoloV(keep=keep, order=order), inputs)
    with torch.no_grad():
        features = case.model.model.get_image_features(inputs["pixel_values"]).pooler_output
    start = 2
    for image, (_, values) in enumerate(looked(case.model, inputs["pixel_values"])):
        line = [token for own in literal(values, features[image], keep) for token in own]
        assert run.trace[0].kept[0][image].tolist() == sorted(line)
        read = line if order == "published" else sorted(line)
        assert torch.equal(states[0, start : start + keep], features[image][read])
        start += keep


@pytest.mark.parametrize("per", ["tile", "input"])
def test_frames_have_crops_of_their_own(per: Any) -> None:
    case = tiny("qwen2.5-vl-video")
    inputs = case.prompts.rows(2)
    run, _ = entering(case, HoloV(keep=7, per=per), inputs)
    for kind, kept in zip(run.trace[0].kind[0], run.trace[0].kept[0], strict=True):
        frames = received_by_frames(case.model, inputs)[kind, 0]
        if per == "input":
            frames = [
                (torch.cat([own for own, _ in frames]), [v for _, own in frames for v in own])
            ]
        shares = share_of(7, [len(own) for _, own in frames])
        wanted, start = [], 0
        for (states, values), most in zip(frames, shares, strict=True):
            runs = literal(values, states, most) if most else []
            wanted += sorted(start + token for own in runs for token in own)
            start += len(values)
        assert kept.tolist() == wanted


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="holov.score returned NaN"):
        by_hand(torch.tensor([0.1, float("nan"), 0.2]), torch.randn(3, 4), 2)


@pytest.mark.parametrize(
    ("params", "words"),
    [({"keep": 0}, "keep=0"), ({"per": "odd"}, "per"), ({"crops": 0}, "crops=0")],
)
def test_bad_parameters(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HoloV(**params)
