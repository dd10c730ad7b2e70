"""CLSE on videos: a spectrum of each frame or over time, and the settings published for them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from torch import Tensor

import prunus
from prunus import CLSE
from prunus.grid import Grid
from prunus.inference.named import parse_one
from prunus.method.budget import Budget
from tests.methods.test_clse import literal_gate
from tests.support.facts import counts
from tests.support.literal.clse import best, first_stage, states_and_attention
from tests.support.literal.spectral import literal_map, literal_map_over_time
from tests.support.models import Case, case_of
from tests.support.runs import plain

#: Shares of the original tokens after each stage, by nominal share, as released for Qwen2-VL.
TRIPLES = {0.334: (0.57, 0.36, 0.098), 0.223: (0.38, 0.24, 0.066), 0.112: (0.19, 0.12, 0.034)}


def preset(name: str, **params: Any) -> CLSE:
    return CLSE(**{**CLSE.presets[name], **params})


def literal_change(spectrum: str, now: Tensor, then: Tensor, grid: tuple[int, int, int]) -> Any:
    """Evolution intensity of one video, mean over all of its frames."""
    transform = literal_map if spectrum == "2d" else literal_map_over_time
    a, b = transform(now, *grid, 0.1).tolist(), transform(then, *grid, 0.1).tolist()
    mean = sum(b) / len(b)
    return [min(abs(x - y) / (y + mean + 1e-6), 1.0) for x, y in zip(a, b, strict=True)]


@pytest.fixture
def case() -> Case:
    return case_of("qwen2.5-vl-video")


@pytest.mark.parametrize("spectrum", ["2d", "3d"])
@pytest.mark.parametrize("variant", ["paper", "hybrid", "released"])
def test_a_video_is_one_image_with_slices(case: Case, variant: Any, spectrum: Any) -> None:
    inputs = case.prompts.rows(2, 1)  # a video and an image, and a longer video
    hidden, attention = states_and_attention(case, inputs)
    method = CLSE(keep=6, variant=variant, spectrum=spectrum)
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
    grids, several = case.prompts.grids(inputs), 0
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            grid = grids[row][image]
            several += grid[0] > 1
            states = hidden[1][row, places], hidden[0][row, places]
            expected = literal_change(spectrum if grid[0] > 1 else "2d", *states, grid)
            if variant != "paper":
                own = attention[0][row, :, -1, places].mean(0).tolist()
                expected = [g * a for g, a in zip(literal_gate(expected, 0.1), own, strict=True)]
            kept, scores = first_stage(run, row, image)
            assert scores == pytest.approx(expected, rel=1e-3, abs=1e-5)
            assert kept == best(scores, len(kept))
    assert several == 2


def test_time_changes_the_choice_and_the_cost(case: Case) -> None:
    inputs = case.prompts.rows(1)
    runs = []
    for spectrum in ("2d", "3d"):
        with prunus.prune(case.model, CLSE(keep=5, spectrum=spectrum)) as run:
            plain(case.model, inputs)
        runs.append(run)
    assert runs[0].trace[0].kept[0][0].tolist() != runs[1].trace[0].kept[0][0].tolist()
    video, image = Grid(2, 3, 3, (1, 1)), Grid(1, 6, 3, (1, 1))
    assert CLSE(spectrum="3d").macs(0, video, 18, 10) == 2 * 18 * (2 + 3 + 3) * 10
    assert CLSE().macs(0, video, 18, 10) == 2 * 18 * (3 + 3) * 10
    assert CLSE(spectrum="3d").macs(0, image, 18, 10) == 2 * 18 * (6 + 3) * 10


def test_the_setting_released_for_video_llava(case: Case) -> None:
    """Hybrid, one stage at layer 3, changes since layer 2."""
    inputs = case.prompts.rows(1)
    hidden, attention = states_and_attention(case, inputs)
    method = preset("video-llava", keep=6)
    assert [(cut.layer, cut.trim_cache) for cut in method.cuts(32)] == [(3, False)]
    assert CLSE.presets["video-llava"]["keep"] == 194
    assert counts(preset("video-llava"), 2048, 32) == (194,)
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
    places, grid = case.prompts.spots(inputs["input_ids"])[0][0], case.prompts.grids(inputs)[0][0]
    change = literal_change("2d", hidden[3][0, places], hidden[2][0, places], grid)
    own = attention[2][0, :, -1, places].mean(0).tolist()
    expected = [g * a for g, a in zip(literal_gate(change, 0.1), own, strict=True)]
    kept, scores = first_stage(run, 0, 0)
    assert scores == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert kept == best(scores, 6) and [entry.layer for entry in run.trace] == [3]


@pytest.mark.parametrize("keep", TRIPLES)
def test_the_shares_released_for_qwen2_vl(keep: float) -> None:
    method = preset("qwen2-vl", keep=keep)
    for size in [*range(1, 200), 576, 1000, 1296, 16383]:
        expected = tuple(max(1, int(size * part)) for part in TRIPLES[keep])
        assert counts(method, size, 28) == expected
    assert [(cut.layer, cut.trim_cache) for cut in method.cuts(28)] == [
        (layer, False) for layer in (1, 10, 19)
    ]
    assert parse_one("clse@qwen2-vl").params["keep"] == 0.334


def test_shares_and_counts_differ_where_the_last_stage_does() -> None:
    assert counts(preset("qwen2-vl"), 144, 28) == (82, 51, 14)
    assert counts(CLSE(keep=0.334, variant="released"), 144, 28) == (82, 52, 15)


def test_between_the_listed_shares() -> None:
    found = [counts(preset("qwen2-vl", keep=n / 100), 2000, 28) for n in range(1, 101)]
    for before, after in itertools.pairwise(found):
        assert all(a <= b for a, b in zip(before, after, strict=True))
    assert found[-1] == (2000, 2000, 2000)
    assert counts(preset("qwen2-vl", keep=0.056), 2000, 28) == (190, 120, 34)  # half of 0.112
    # A number of tokens is the share that it is.
    assert counts(preset("qwen2-vl", keep=334), 1000, 28) == (570, 360, 98)
    assert counts(preset("qwen2-vl", keep=5000), 1000, 28) == (1000, 1000, 1000)


@pytest.mark.parametrize("keep", [0.334, 0.223, 300])
def test_shares_scale_to_a_true_average(keep: float) -> None:
    method = preset("qwen2-vl", keep=keep)
    found = Budget([method], 28, "true").counts(method, 1, 1000)
    assert found is not None
    a, b, c = found
    asked = keep if isinstance(keep, int) else int(keep * 1000)
    assert abs((1000 + 9 * a + 9 * b + 9 * c) / 28 - asked) <= 0.5


def test_refused() -> None:
    with pytest.raises(ValueError, match="schedule='shares' is of variant='released'"):
        CLSE(schedule="shares")
    with pytest.raises(ValueError, match="spectrum='1d': choose 2d or 3d"):
        CLSE(spectrum="1d")  # type: ignore[arg-type]
