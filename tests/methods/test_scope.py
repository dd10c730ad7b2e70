"""SCOPE against a literal reading, from the unmodified tower's own features and attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from prunus import EvoPrune
from prunus.errors import PrunusError
from prunus.grid import Grid, Tiles
from prunus.method.signals import Features, TowerAttention
from prunus.pruners.scope import Scope
from tests.support.entering import entering, view_by_hand
from tests.support.facts import counts
from tests.support.literal.cover import literal_cover
from tests.support.literal.tower import looked, received_by_frames, share_of
from tests.support.models import case_of
from tests.support.towers import deep, prompt

SEES = (Features(), TowerAttention())


def scoped(
    features: Sequence[Tensor], attention: Sequence[float], count: int, alpha: float = 1.0
) -> list[int]:
    """Tokens of one image, in the order of picking."""
    unit = [row.double() / row.double().norm() for row in features]
    alike = [[float(one @ other) for other in unit] for one in unit]
    return literal_cover(alike, count, [value**alpha for value in attention])


def view_of(count: int, grid: Any, states: Tensor, attention: Tensor) -> Any:
    return view_by_hand(count, grid, states=states, attention=attention, sees=SEES)


def test_the_published_example() -> None:
    states = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    attention = torch.tensor([1.0, 1.0, 0.4])
    assert scoped(list(states), attention.tolist(), 2) == [0, 2]
    answer = Scope(keep=2).select(0, view_of(2, Grid(1, 1, 3, (8, 8)), states, attention))
    assert answer.kept.tolist() == [[0, 2]]  # type: ignore[union-attr]


# Without weights, two tokens that cover nothing but each other add the same, but for rounding.
@pytest.mark.parametrize(
    ("keep", "alpha"), [(1, 0.0), (5, 0.0), (1, 1.0), (5, 1.0), (14, 1.0), (35, 1.0), (14, 2.5)]
)
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_keeps_what_the_literal_loop_picks(kind: str, keep: int, alpha: float) -> None:
    case, inputs = deep(kind), prompt(2)
    run, states = entering(case, Scope(keep=keep, alpha=alpha), inputs)
    with torch.no_grad():
        projected = case.model.model.get_image_features(inputs["pixel_values"]).pooler_output
    start = 2
    for image, (features, values) in enumerate(looked(case.model, inputs["pixel_values"])):
        wanted = sorted(scoped(list(features), values, keep, alpha))
        assert run.trace[0].kept[0][image].tolist() == wanted
        assert torch.equal(states[0, start : start + keep], projected[image][wanted])
        start += keep


@pytest.mark.parametrize("per", ["tile", "input"])
def test_frames_of_a_video_have_their_share(per: Any) -> None:
    case = case_of("qwen2.5-vl-video")
    inputs = case.prompts.rows(2)
    run, _ = entering(case, Scope(keep=7, per=per), inputs)
    for kind, kept in zip(run.trace[0].kind[0], run.trace[0].kept[0], strict=True):
        frames = received_by_frames(case.model, inputs)[kind, 0]
        size = len(frames[0][1])
        if per == "input":
            rows = [row for features, _ in frames for row in features]
            wanted = scoped(rows, [value for _, values in frames for value in values], 7)
        else:
            shares = share_of(7, [size] * len(frames))
            wanted = [
                number * size + token
                for number, (features, values) in enumerate(frames)
                for token in scoped(list(features), values, shares[number])
            ]
        assert kept.tolist() == sorted(wanted)


def test_tiles_have_their_share_and_one_of_none_is_left_out() -> None:
    tiles = Tiles((Grid(1, 2, 2, (8, 8)), Grid(1, 3, 4, (8, 8))))
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(16, 5, generator=generator)
    attention = torch.rand(16, generator=generator)
    for count, shares in ((8, (2, 6)), (1, (0, 1)), (15, (4, 11))):
        answer = Scope(keep=count).select(0, view_of(count, tiles, states, attention))
        first = scoped(list(states[:4]), attention[:4].tolist(), shares[0])
        second = scoped(list(states[4:]), attention[4:].tolist(), shares[1])
        wanted = sorted([*first, *(4 + token for token in second)])
        assert answer.kept.tolist() == [wanted]  # type: ignore[union-attr]


def test_behind_a_merge_in_the_tower() -> None:
    case, inputs = deep(), prompt(2)
    first = EvoPrune(keep=15)
    run, _ = entering(case, [first, Scope(keep=6)], inputs)
    for image in range(2):
        left = set(run.trace[0].kept[0][image].tolist())
        own = run.trace[1].kept[0][image].tolist()
        assert len(own) == 6 and set(own) < left


def test_published_counts_and_refusals() -> None:
    for name, own in Scope.presets.items():
        assert counts(Scope(**own), 576) == (int(name),)  # type: ignore[arg-type]
    for params, words in (({"alpha": -1.0}, "alpha=-1"), ({"keep": 0}, "keep=0")):
        with pytest.raises(PrunusError, match=words):
            Scope(**params)  # type: ignore[arg-type]
    case, inputs = deep(), prompt(1)
    inputs["pixel_values"][0, 0, 0, 0] = float("nan")
    with pytest.raises(PrunusError, match="scope: scores hold NaN"):
        entering(case, Scope(keep=4), inputs)
