"""Where the plateau of the shallow stage ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import prunus
from prunus.analyse.context import Context
from prunus.calibrate.shallow import candidates, find_shallow
from prunus.tasks.sets import training_questions


def right(count: int, of: int = 20) -> np.ndarray:
    return np.array([1.0] * count + [0.0] * (of - count))


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model of twelve layers whose right answers of 20, by shallow layers, are given."""

    def made(*answers: int) -> Any:
        def measure(context: Any, setting: tuple[Any, ...], step: Any) -> Any:
            layers = setting[0].shallow_layers if setting else 0
            assert not setting or setting[0].stages == ("shallow",)
            return SimpleNamespace(success=right(answers[layers]))

        monkeypatch.setattr("prunus.calibrate.shallow.measure", measure)
        return SimpleNamespace(depth=12, groups=np.arange(20))

    return made


def test_candidates_leave_a_layer_to_look_at() -> None:
    assert candidates(12) == [1, 2, 3, 4, 5, 6]
    assert candidates(5) == [1, 2] and candidates(4) == [1] and candidates(3) == []


def test_the_end_of_the_plateau(fixed: Any) -> None:
    layers, tried = find_shallow(fixed(18, 18, 19, 18, 16, 18, 10))
    assert layers == 3  # what lies behind the first loss is no plateau any more
    assert [one.layers for one in tried] == [0, 1, 2, 3, 4, 5, 6]
    assert tried[4].success == 0.8 and tried[4].difference.value == pytest.approx(-0.1)
    assert tried[4].difference.low < -0.1 < tried[4].difference.high


def test_the_bound_is_an_option(fixed: Any) -> None:
    assert find_shallow(fixed(18, 17, 17, 17, 16, 16, 0), max_loss=0.06)[0] == 3
    assert find_shallow(fixed(18, 17, 17, 17, 16, 16, 0), max_loss=0.12)[0] == 5
    assert find_shallow(fixed(18, 18, 18, 18, 18, 18, 18))[0] == 6


def test_none_where_one_layer_costs_too_much(fixed: Any) -> None:
    assert find_shallow(fixed(18, 17, 18, 18, 18, 18, 18))[0] == 0


def test_what_cannot_be_searched(fixed: Any) -> None:
    with pytest.raises(ValueError, match="answers none of 20"):
        find_shallow(fixed(0, 0, 0, 0, 0, 0, 0))
    for bound in (0, -1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            find_shallow(fixed(18), max_loss=bound)
    context = fixed(18)
    context.depth = 3
    with pytest.raises(ValueError, match="too shallow"):
        find_shallow(context)


def test_on_the_built_in_model() -> None:
    model, processor = prunus.load("tiny-llava")
    context = Context(model, processor, training_questions(2, 2))
    steps: list[int] = []
    layers, tried = find_shallow(context, 1.0, steps.append)
    assert sum(steps) == 4 * len(tried) == 28
    assert 0 <= layers <= 6 and tried[0].success > 0
