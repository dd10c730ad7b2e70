"""VidCom2 against a literal reading, on projected tokens of the unmodified model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus.grid import Grid
from prunus.pruners.vidcom2 import VidCom2
from tests.support.entering import entering, view_by_hand
from tests.support.facts import counts
from tests.support.models import case_of as tiny
from tests.support.runs import plain
from tests.support.towers import deep, prompt

WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1, 2)


def literal(states: Tensor, frames: int, keep: float, fixed: bool) -> list[int]:
    """``states [T n, D]``, frame by frame."""
    total, width = states.shape
    each, share = total // frames, keep / total
    variance = []
    for channel in range(width):
        own = states[:, channel].double()
        variance.append(float(((own - own.mean()) ** 2).mean()))
    steady = sorted(range(width), key=lambda channel: variance[channel])[: width // 2]
    rows = states.double()[:, steady]
    rows = [row / row.norm() for row in rows]

    def near(row: Tensor, centre: Tensor) -> float:
        apart = float(((row - centre) ** 2).sum())
        return sum(math.exp(-apart / (2 * width)) for width in WIDTHS)

    video = sum(rows[1:], rows[0]) / total
    by_video = [near(row, video) for row in rows]
    typical = []
    for t in range(frames):
        own = rows[t * each : (t + 1) * each]
        centre = sum(own[1:], own[0]) / each
        typical += [by_video[t * each + n] + near(row, centre) for n, row in enumerate(own)]
    means = [sum(by_video[t * each : (t + 1) * each]) / each for t in range(frames)]
    powers = [math.exp(-(mean - min(means)) / 0.01) for mean in means]
    odd = [power / sum(powers) for power in powers]
    kept: list[int] = []
    for t in range(frames):
        many = round(each * min(1.0, share * (1 + odd[t] - sum(odd) / frames)))
        many = min(max(many, 1), each)
        line = sorted(range(t * each, (t + 1) * each), key=lambda n: typical[n])
        kept += line[:many]
    if fixed:
        rest = sorted((n for n in range(total) if n not in kept), key=lambda n: typical[n])
        kept = sorted(kept, key=lambda n: typical[n])[: int(keep)]
        kept += rest[: int(keep) - len(kept)]
    return sorted(kept)


def method_of(keep: float, count: str) -> VidCom2:
    """One that keeps a share: exactly, or whatever the original comes to."""
    return VidCom2(keep=keep) if count == "fixed" else VidCom2(keep=None, ratio=keep)


def by_hand(states: Tensor, frames: int, keep: float, count: str = "fixed") -> list[int]:
    """``keep``: tokens, or a share of them."""
    method = method_of(keep / len(states) if keep > 1 else keep, count)
    wanted = None if method.keep is None else counts(method, len(states))[0]
    grid = Grid(frames, 1, len(states) // frames, (8, 8))
    found: list[int] = method.select(0, view_by_hand(wanted, grid, states)).kept[0].tolist()
    return found


def test_the_published_example() -> None:
    """Two frames of four equal tokens: one of each stays, the first."""
    for count in ("fixed", "original"):
        assert by_hand(torch.ones(8, 4), 2, 0.25, count=count) == [0, 4]


@pytest.mark.parametrize("count", ["fixed", "original"])
@pytest.mark.parametrize("keep", [4, 11, 23, 47])
def test_equals_the_formula(keep: int, count: Any) -> None:
    drift = 0
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(4, 1, 6, generator=generator) + torch.randn(
            4, 12, 6, generator=generator
        )
        states = (drawn * torch.rand(6, generator=generator)).flatten(0, 1)
        wanted = literal(states, 4, keep, count == "fixed")
        assert by_hand(states, 4, keep, count=count) == wanted
        drift += abs(len(wanted) - keep)
    if keep >= 23:
        assert (drift == 0) == (count == "fixed")


def test_a_frame_that_stands_out_keeps_up_to_twice_its_share() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, 8, generator=generator) + 0.1 * torch.randn(40, 8, generator=generator)
    states[20:30] = -states[20:30]  # the third of four frames
    kept = by_hand(states, 4, 0.3, count="original")
    by_frame = [sum(t * 10 <= token < t * 10 + 10 for token in kept) for t in range(4)]
    assert by_frame == [2, 2, 5, 2]


def test_less_than_a_token_of_each_frame() -> None:
    states = torch.randn(48, 6, generator=torch.Generator().manual_seed(3))
    assert by_hand(states, 12, 5) == literal(states, 12, 5, True)
    assert len(by_hand(states, 12, 5)) == 5


@pytest.mark.parametrize("count", ["fixed", "original"])
def test_on_videos_of_a_model(count: Any) -> None:
    case = tiny("qwen2.5-vl-video")
    inputs = case.prompts.rows(2)
    run, _ = entering(case, method_of(0.3, count), inputs)
    _, dense = entering(case, VidCom2(keep=1.0), inputs)
    for image, places in enumerate(case.prompts.spots(inputs["input_ids"])[0]):
        frames = run.trace[0].grid[0][image].frames
        keep = int(0.3 * len(places)) if count == "fixed" else 0.3 * len(places)
        wanted = literal(dense[0, places], frames, keep, count == "fixed")
        assert run.trace[0].kept[0][image].tolist() == wanted


def test_an_image_is_a_video_of_one_frame() -> None:
    case, inputs = deep(), prompt(2)
    run, _ = entering(case, VidCom2(keep=9), inputs)
    _, dense = entering(case, VidCom2(keep=1.0), inputs)
    for image in range(2):
        own = dense[0, 2 + 36 * image : 38 + 36 * image]
        assert run.trace[0].kept[0][image].tolist() == literal(own, 1, 9, True)


def test_everything_is_everything_whatever_the_formula_says() -> None:
    """Its counts are below those of some frames even where all is asked for."""
    states = torch.randn(48, 6, generator=torch.Generator().manual_seed(3))
    assert len(literal(states, 4, 48, False)) < 48
    for count in ("fixed", "original"):
        assert by_hand(states, 4, 1.0, count=count) == list(range(48))


def test_published_settings() -> None:
    assert VidCom2(**VidCom2.presets["paper"]) == VidCom2()
    assert counts(VidCom2(), 64 * 169) == (2704,)
    original = VidCom2(**VidCom2.presets["original"])
    assert original.keep is None and original.ratio == 0.25
    with pytest.raises(ValueError, match="true budget"):
        prunus.prune(tiny("qwen2.5-vl-video").model, original, budget="true")


def test_after_another_method_frames_may_be_empty() -> None:
    case = tiny("qwen2.5-vl-video")
    inputs = case.prompts.rows(1)
    first = prunus.Fixed([[[0, 1, 2, 3, 4]]], layer=None)
    for method in (VidCom2(keep=3), VidCom2(keep=None, ratio=0.6)):
        with prunus.prune(case.model, [first, method]) as run:
            plain(case.model, inputs)
        kept = run.trace[1].kept[0][0].tolist()
        assert set(kept) < set(range(5)) and (len(kept) == 3 or method.keep is None)


def test_scores_that_are_no_numbers_are_refused() -> None:
    states = torch.randn(8, 4)
    states[3, :] = torch.nan
    with pytest.raises(ValueError, match="vidcom2.score returned NaN"):
        by_hand(states, 2, 3)


@pytest.mark.parametrize(
    ("params", "words"), [({"keep": 0}, "keep=0"), ({"ratio": 1.5}, "ratio=1.5")]
)
def test_bad_parameters(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VidCom2(**params)
