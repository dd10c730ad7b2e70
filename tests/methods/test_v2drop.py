"""V2Drop against a slow, literal reading of its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prunus.pruners.v2drop import V2Drop
from prunus.signals.change import moved
from prunus.signals.topk import stable_topk
from tests.support.facts import counts, nominal
from tests.support.literal.clse import best
from tests.support.literal.inside import Literal, check, drop, number_of
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles.layered import Line


def literal_v2drop(layers: tuple[int, ...], left: Any) -> Literal:
    """``left(stage, there)``: how many stay."""

    def cut(line: Line, spots: list[list[int]]) -> list[list[int]] | None:
        if line.layer not in layers:
            return None
        before, tokens = line.entered[line.layer - 1], line.maps[line.layer - 1][1]
        kept = []
        for places in spots:
            numbers, scores = number_of(line, places), []
            for number in numbers:
                place = places[number]
                now = line.states[line.tokens.index(place)]
                then = before[tokens.index(place)]
                scores.append(sum(float(value) ** 2 for value in now - then) ** 0.5)
            count = left(layers.index(line.layer), len(numbers), len(places))
            kept.append([numbers[n] for n in best(scores, count)])
        drop(line, spots, kept)
        return kept

    return cut


def by_ratios(*ratios: float) -> Any:
    return lambda stage, there, original: max(1, int(there * ratios[stage] + 1e-6))


@pytest.mark.parametrize(
    ("layers", "ratios"),
    [((1, 2, 3), (0.5, 0.5, 0.0)), ((1, 3), (0.7, 0.4)), ((2,), (0.3,)), ((1, 2, 4), (1, 0.5, 1))],
)
def test_equals_the_formula(case: Case, layers: tuple[int, ...], ratios: tuple[float, ...]) -> None:
    method = V2Drop(layers=layers, ratios=ratios)
    check(case, method, lambda: literal_v2drop(layers, by_ratios(*ratios)))


def test_defaults_are_in_proportion_to_the_depth(case: Case) -> None:
    layers = tuple(cut.layer or 0 for cut in V2Drop().cuts(DEPTH))
    assert layers == (1, 2, 3)  # of 5
    check(case, V2Drop(), lambda: literal_v2drop(layers, by_ratios(0.5, 0.5, 0.0)))
    for depth, wanted in ((32, [3, 17, 22]), (28, [2, 14, 19]), (40, [3, 21, 27]), (3, [1, 2, 3])):
        assert [cut.layer for cut in V2Drop().cuts(depth)] == wanted


def test_the_published_example() -> None:
    then, now = torch.tensor([[[0.0, 0], [1, 1]]]), torch.tensor([[[3.0, 4], [1, 1]]])
    assert moved(now, then).tolist() == [[5.0, 0.0]]
    assert stable_topk(moved(now, then), 1).tolist() == [[0]]
    wide = torch.randn(2, 3, 1300), torch.randn(2, 3, 1300)
    torch.testing.assert_close(moved(*wide), (wide[0] - wide[1]).norm(dim=-1))


@pytest.mark.parametrize(
    ("preset", "left", "average"),
    [
        ("paper", (288, 144, 1), 202.8),
        ("192", (267, 133, 1), 191.9),
        ("128", (143, 71, 1), 128.0),
        ("64", (19, 8, 1), 63.9),
    ],
)
def test_schedules_and_their_averages(preset: str, left: tuple[int, ...], average: float) -> None:
    method = V2Drop(**V2Drop.presets[preset])
    assert counts(method, 576, 32) == left
    layers = [3, 17, 22]
    total = sum([576, *left][sum(at <= layer for at in layers)] for layer in range(32))
    assert round(total / 32, 1) == average
    assert nominal(method, 576, 32) == pytest.approx(total / 32)


def test_the_model_of_40_layers_averages_less_where_its_layers_are_those_of_32() -> None:
    method = V2Drop(layers=(3, 17, 22))
    assert nominal(method, 576, 40) == pytest.approx(162.45)
    qwen = V2Drop(**V2Drop.presets["qwen2-vl"])
    assert [cut.layer for cut in qwen.cuts(28)] == [3, 16, 22]
    average = nominal(qwen, 1000, 28)
    assert counts(qwen, 1000, 28) == (250, 12, 1)
    assert average is not None and average / 1000 == pytest.approx(0.226, abs=1e-3)


@pytest.mark.parametrize("keep", [60, 128, 192, 300, 500, 576])
def test_keep_is_the_average_over_all_layers(keep: int) -> None:
    method = V2Drop(keep=keep)
    left = counts(method, 576, 32)
    total = sum([576, *left][sum(at <= n for at in (3, 17, 22))] for n in range(32))
    assert abs(total / 32 - keep) <= 0.5
    assert list(left) == sorted(left, reverse=True)
    if keep == 576:
        assert left == (576, 576, 576)


def test_too_little_is_refused_with_the_least() -> None:
    with pytest.raises(ValueError, match="v2drop cannot average 30 of 576.*the least is 54.9"):
        counts(V2Drop(keep=30), 576, 32)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"keep": 0}, "keep=0"),
        ({"ratios": (0.5, 1.5, 0)}, "from 0 to 1"),
        ({"ratios": (0.5,)}, "there are 3 layers"),
        ({"layers": (0, 1, 2)}, "from 1 on"),
        ({"layers": (1, 2)}, "there are 2 layers"),
        ({"layers": (), "ratios": ()}, "from 0 to 1"),
    ],
)
def test_bad_parameters(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        V2Drop(**params)
