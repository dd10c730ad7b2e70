"""EvoPrune with a budget for a whole video, which its frames share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Fixed
from prunus.engine.tower.passing import TowerPass
from prunus.errors import PrunusBudgetError, PrunusError
from prunus.families import family_of
from prunus.grid import Grid
from prunus.method.budget import Budget
from tests.support import qwen as qwen_support
from tests.support.families import encoded
from tests.support.kinds.video_llava import CELLS, FRAMES, VIDEO_LLAVA, video_llava
from tests.support.literal.evoprune import literal
from tests.support.models import Case
from tests.support.oracles.merged_windows import frames_of, merged_frame
from tests.support.qwen import MERGE, QwenPrompts, qwen
from tests.support.runs import plain


@pytest.fixture
def videos(monkeypatch: pytest.MonkeyPatch) -> Case:
    """Videos of 2 and of 3 frames of equal size, which run through the tower together."""
    monkeypatch.setattr(qwen_support, "VIDEOS", ((2, 6, 8), (3, 6, 8)))
    return Case("qwen2.5-vl-video", qwen(), QwenPrompts(("video", "image")))


@pytest.mark.parametrize(("keep", "each"), [(15, (7, 5)), (0.5, (6, 6)), (0.4, (4, 4))])
def test_frames_share_it_as_the_literal_reading_does(
    videos: Case, keep: Any, each: tuple[int, int]
) -> None:
    inputs = videos.prompts.rows(2, 1)
    method = EvoPrune(keep=keep, per="video", start=0)
    with prunus.prune(videos.model, method) as run:
        plain(videos.model, inputs)
    (entry,) = run.trace
    found = [
        (kept.tolist(), into.tolist())
        for sample in zip(entry.kind, entry.kept, entry.merged_into, strict=True)
        for kind, kept, into in zip(*sample, strict=True)
        if kind == "video"
    ]
    assert [len(kept) for kept, _ in found] == [2 * each[0], 3 * each[1]]
    begins = [0, 0]
    for kind, number, grid, pixels in frames_of(inputs, MERGE):
        if kind != "video":
            continue
        gone = list(method.merges(4, grid.size, each[number]))
        with torch.no_grad():
            tokens, history = merged_frame(
                videos.model.model.visual, pixels, grid, literal(method, gone), method.by_size
            )
        first, (kept, into) = begins[number], found[number]
        begins[number] += grid.size
        own = [token - first for token in kept if first <= token < first + grid.size]
        assert own == sorted(tokens) and len(own) == each[number]
        stands = [token - first for token in into[first : first + grid.size]]
        assert {token: stands.count(token) for token in own} == history[-1]


def test_it_can_be_repeated(videos: Case) -> None:
    """Also where videos of one call kept unequally many tokens of each frame."""
    inputs = videos.prompts.rows(2, 1)
    with prunus.prune(videos.model, EvoPrune(keep=15, per="video", start=0)) as run:
        expected = plain(videos.model, inputs)
    with prunus.prune(videos.model, Fixed.replay(run.trace)) as again:
        found = plain(videos.model, inputs)
    assert torch.equal(found, expected) and str(again.trace[0].steps) == str(run.trace[0].steps)
    other = {**inputs, "video_grid_thw": torch.tensor([[2, 12, 4], [3, 12, 4]])}
    with prunus.prune(videos.model, Fixed.replay(run.trace)):
        plain(videos.model, other)  # as many tokens of each frame
    other = {**inputs, "video_grid_thw": torch.tensor([[1, 12, 8], [3, 6, 8]])}
    with (
        prunus.prune(videos.model, Fixed.replay(run.trace)),
        pytest.raises(PrunusError, match="12 tokens of each frame of input 0, .* runs on 24"),
    ):
        plain(videos.model, other)


def test_a_tower_that_runs_all_at_one_length() -> None:
    """What is said for a frame and for the video of equal parts is the same."""
    model, processor = video_llava()
    inputs = encoded(VIDEO_LLAVA, processor, "a V?")
    frames, each = FRAMES, CELLS // 2
    found = []
    for method in (
        EvoPrune(keep=each, start=0),
        EvoPrune(keep=each * frames + frames - 1, per="video", start=0),
    ):
        with prunus.prune(model, method) as run:
            logits = plain(model, inputs)
        found.append((logits, run.trace[0].kept, run.report()["tokens"]))
    assert torch.equal(found[0][0], found[1][0]) and str(found[0][1]) == str(found[1][1])
    assert found[1][2]["nominal"] == each * frames + frames - 1
    assert found[1][2]["average"] == each * frames

    tower = family_of(model).tower_adapters()["video"]
    both = [Grid(2, 4, 4, (8, 8)), Grid(3, 4, 4, (8, 8))]
    pixels = {"pixel_values": torch.zeros(5, 3, 1, 1)}
    counts = Budget([EvoPrune(keep=24, per="video", start=0)], 5)
    with pytest.raises(PrunusError, match="leave 12 and 8 tokens of frames.* at one length"):
        TowerPass(
            tower,
            counts.last,  # type: ignore[arg-type]
            lambda grid: (counts.counts(counts.last, grid.frames, grid.size) or (0,))[0],
            {},
            pixels,
            both,
            "video",
        )


def test_counts() -> None:
    method = EvoPrune(keep=194, per="video")
    budget = Budget([method], 32)
    assert budget.counts(method, 8, 2048) == (24,) and budget.asked(method, 8, 2048) == 194
    assert budget.counts(method, 1, 256) == (194,) and budget.asked(method, 1, 256) == 194
    assert budget.counts(method, 8, 160) == (20,)  # there are no more
    share = EvoPrune(keep=0.1, per="video")
    assert Budget([share], 32).counts(share, 3, 49 * 3) == (4,)
    assert Budget([share], 32).counts(share, 2, 45 * 2) == (4,)  # 9 of 90
    few = EvoPrune(keep=7, per="video")
    with pytest.raises(PrunusBudgetError, match="keep=7 of 2048 .* among 8 frames.* 8 or more"):
        Budget([few], 32).counts(few, 8, 2048)


def test_true_budgets_behind_it() -> None:
    first, second = EvoPrune(keep=0.5, per="video"), CLSE(keep=194)
    budget = Budget([first, second], 32, "true")
    assert budget.counts(first, 8, 2048) == (128,)
    found = budget.counts(second, 8, 2048)
    assert found is not None and abs((1024 + 31 * found[0]) / 32 - 194) <= 0.5


def test_refused() -> None:
    with pytest.raises(ValueError, match="per='second': choose frame or video"):
        EvoPrune(per="second")  # type: ignore[arg-type]
