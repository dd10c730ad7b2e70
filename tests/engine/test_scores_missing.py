"""Images within their budget beside images that are not: some have scores, some have none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import prunus
from prunus import MMR, Method, Selection, View
from prunus.method import Cut
from tests.support.models import Case, case_of
from tests.support.qwen import QwenPrompts, qwen
from tests.support.random_selectors import RandomOneShot, RandomStepwise
from tests.support.runs import plain


@pytest.fixture
def case() -> Case:
    """Images of 20 and 24 tokens, in turns."""
    return Case("qwen2.5-vl", qwen(), QwenPrompts())


@pytest.mark.parametrize(
    "method",
    [MMR(keep=20), MMR(keep=20, weight=0), RandomOneShot(keep=20), RandomStepwise(keep=20)],
)
@pytest.mark.parametrize("images", [(2, 1), (1, 1), (1, 2)])
def test_trace_and_report(case: Case, method: Method, images: tuple[int, ...]) -> None:
    inputs = case.prompts.rows(*images)
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
    (entry,) = run.trace
    sizes = [[grid.size for grid in sample] for sample in entry.grid]
    assert {20, 24} == {size for sample in sizes for size in sample}
    assert [[len(kept) for kept in sample] for sample in entry.kept] == [
        [20] * len(sample) for sample in sizes
    ]
    assert entry.scores is not None
    for sample, own in zip(entry.scores, sizes, strict=True):
        for scores, size in zip(sample, own, strict=True):
            assert scores.dtype == torch.float32 and scores.shape == (size,)
            assert bool(scores.isnan().all()) == (size == 20)
            assert bool(scores.isnan().any()) == (size == 20)
    assert run.report()["tokens"]["kept"] == 20 * sum(images) / len(images)
    assert "visual tokens" in str(run.report())


@pytest.mark.parametrize("method", [MMR(keep=24), RandomStepwise(keep=30), RandomOneShot(keep=24)])
def test_all_images_within_their_budget_have_none(case: Case, method: Method) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
    assert run.trace[0].scores is None and not run.report()["pruned"]


@dataclass(frozen=True)
class Sometimes(Method):
    """Scores for the second image of a sample only; both keep five tokens."""

    def cuts(self, depth: int) -> list[Cut]:
        return [Cut(1)]

    def choose(self, stage: int, views: Any) -> list[Selection]:
        return [self._one(view) for view in views]

    def _one(self, view: View) -> Selection:
        groups = len(view.owners)
        kept = torch.arange(5).expand(groups, 5)
        scored = view.grid.size == 24
        scores = torch.rand(view.present.shape) if scored else None
        return Selection(kept, scores)


Sometimes.name = "sometimes"  # set here, it is not found by the tests over all methods


def test_a_decoder_stage_with_scores_of_some_images(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, Sometimes()) as run:
        plain(case.model, inputs)
    flat = [scores for sample in run.trace[0].scores or [] for scores in sample]
    assert [bool(scores.isnan().all()) for scores in flat] == [len(scores) == 20 for scores in flat]


def test_a_trace_with_missing_scores_replays(case: Case) -> None:
    inputs = case.prompts.rows(2)
    with prunus.prune(case.model, MMR(keep=20)) as run:
        plain(case.model, inputs)
    replayed = prunus.Fixed.replay(run.trace)
    with prunus.prune(case.model, replayed) as again:
        plain(case.model, inputs)
    for ours, theirs in zip(run.trace[0].kept[0], again.trace[0].kept[0], strict=True):
        assert torch.equal(ours, theirs)


def test_one_image_of_equal_size_is_not_affected() -> None:
    case = case_of("llava-clip")
    with prunus.prune(case.model, MMR(keep=16)) as run:
        plain(case.model, case.prompts.rows(2, 1))
    assert run.trace[0].scores is None
