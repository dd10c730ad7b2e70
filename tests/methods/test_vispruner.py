"""VisPruner against a literal reading of its loop, from the unmodified tower."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.grid import Grid
from prunus.method.registry import find_method
from prunus.method.signals import Features, TowerAttention
from prunus.pruners.vispruner import VisPruner
from tests.support.entering import entering, view_by_hand
from tests.support.facts import counts
from tests.support.literal.tower import looked, received_by_frames, share_of
from tests.support.models import case_of as tiny
from tests.support.towers import deep, prompt

SEES = (TowerAttention(), Features())


def literal(attention: list[float], features: Tensor, keep: int, important: float) -> list[int]:
    """As published, on a list that shrinks; ``r`` clamped to what there is."""
    size = len(attention)
    if keep >= size:
        return list(range(size))
    unit = [row / row.norm() for row in features.double()]
    ranked = sorted(range(size), key=lambda n: (-attention[n], n))
    best, rest = ranked[: int(keep * important)], ranked[int(keep * important) :]
    diverse = keep - len(best)
    while diverse and len(rest) > diverse:
        odd, even = rest[0::2], rest[1::2]
        fewer = min(8, len(rest) - diverse, len(odd))
        nearest = {a: max(float(unit[a] @ unit[b]) for b in even) for a in odd}
        odd = sorted(odd, key=lambda a: -nearest[a])  # stable: of equal ones the first goes first
        rest = odd[fewer:] + even
    return sorted(best + rest[:diverse])


def by_hand(attention: Tensor, states: Tensor, keep: int, **more: Any) -> list[int]:
    grid = more.pop("grid", Grid(1, 1, len(attention), (8, 8)))
    view = view_by_hand(keep, grid, states=states, attention=attention, sees=SEES)
    kept = VisPruner(keep=keep, **more).select(0, view).kept
    found: list[int] = kept[0].tolist()  # type: ignore[index]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_published_example(seed: int) -> None:
    """Six tokens of falling attention of which four stay: whatever the features are."""
    states = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))
    assert by_hand(torch.arange(6.0, 0, -1), states, 4) == [0, 1, 3, 5]


@pytest.mark.parametrize("keep", [1, 2, 5, 16, 31, 58])
@pytest.mark.parametrize("important", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("size", [59, 90])
def test_the_loop_re_orders_and_odd_lines_lose_what_they_have(
    size: int, keep: int, important: float
) -> None:
    generator = torch.Generator().manual_seed(keep)
    states = torch.randn(size, 6, generator=generator)
    attention = torch.rand(size, generator=generator)
    wanted = literal(attention.tolist(), states, keep, important)
    assert by_hand(attention, states, keep, important=important) == wanted
    assert len(wanted) == keep


def test_without_re_ordering_others_would_stay() -> None:
    """The trap: sorting what is left by index, or by attention, in each round."""
    generator = torch.Generator().manual_seed(1)
    states, attention = torch.randn(90, 6, generator=generator), torch.arange(90.0, 0, -1)
    unit = torch.nn.functional.normalize(states, dim=1)
    rest = list(range(5, 90))
    while len(rest) > 5:
        odd, even = rest[0::2], rest[1::2]
        near = {a: float((unit[a] @ unit[even].T).max()) for a in odd}
        gone = sorted(odd, key=lambda a: -near[a])[: min(8, len(rest) - 5)]
        rest = [token for token in rest if token not in gone]
    assert by_hand(attention, states, 10) != sorted([*range(5), *rest])


@pytest.mark.parametrize("keep", [1, 8, 21])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_keeps_what_the_literal_loop_keeps(kind: str, keep: int) -> None:
    case, inputs = deep(kind), prompt(2)
    run, _ = entering(case, VisPruner(keep=keep), inputs)
    for image, (features, values) in enumerate(looked(case.model, inputs["pixel_values"])):
        wanted = literal(values, features, keep, 0.5)
        assert run.trace[0].kept[0][image].tolist() == wanted


@pytest.mark.parametrize("per", ["tile", "input"])
def test_frames_are_chosen_from_one_by_one(per: Any) -> None:
    case = tiny("qwen2.5-vl-video")
    inputs = case.prompts.rows(2)
    run, _ = entering(case, VisPruner(keep=7, per=per), inputs)
    for kind, kept in zip(run.trace[0].kind[0], run.trace[0].kept[0], strict=True):
        frames = received_by_frames(case.model, inputs)[kind, 0]
        if per == "input":
            states = torch.cat([own for own, _ in frames])
            wanted = literal([v for _, own in frames for v in own], states, 7, 0.5)
        else:
            shares = share_of(7, [len(own) for _, own in frames])
            wanted, start = [], 0
            for (states, values), most in zip(frames, shares, strict=True):
                if most:
                    chosen = literal(values, states, most, 0.5)
                    wanted += [start + token for token in chosen]
                start += len(values)
        assert kept.tolist() == wanted


def test_published_settings() -> None:
    for name in ("192", "128", "64"):
        method = VisPruner(**VisPruner.presets[name])
        assert counts(method, 576) == (int(name),) and method.important == 0.5
    assert VisPruner(**VisPruner.presets["64-important"]).important == 0.75
    assert counts(VisPruner(), 576) == (128,)


def test_many_tokens_take_no_time() -> None:
    """2,880 tokens in five tiles, and in one."""
    attention, states = torch.rand(2880), torch.randn(2880, 64)
    for grid, most in ((Grid(5, 24, 24, (14, 14)), 0.5), (Grid(1, 48, 60, (14, 14)), 2.0)):
        begin = time.thread_time()
        assert len(by_hand(attention, states, 320, grid=grid)) == 320
        assert time.thread_time() - begin < most


def test_a_name_one_letter_away_is_told_apart() -> None:
    for wrong in ("visprunr", "visipruner2"):
        with pytest.raises(PrunusError) as caught:
            find_method(wrong)
        asked = str(caught.value).split("`prunus methods`")[0]
        assert "'vispruner' (what CLS attends to" in asked
        assert "'visipruner' (no vision in early layers" in asked
    with pytest.raises(PrunusError, match="did you mean 'fastv'\\? `prunus methods`"):
        find_method("fastvv")


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(PrunusError, match="vispruner.score returned NaN"):
        by_hand(torch.tensor([0.1, float("nan"), 0.2]), torch.randn(3, 4), 2)


@pytest.mark.parametrize(
    ("params", "words"),
    [({"keep": 0}, "keep=0"), ({"per": "odd"}, "per"), ({"important": 1.5}, "important=1.5")],
)
def test_bad_parameters(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VisPruner(**params)
