"""Scores that a method of one's own returns: judged before anything changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Cut, Method, View
from tests.support.models import Case
from tests.support.runs import plain


class Scored(Method):
    """Three tokens of every image, by whatever scores it was given."""

    def __init__(self, scores: Callable[[View], Tensor]) -> None:
        self.scores = scores

    def cuts(self, depth: int) -> list[Cut]:
        return [Cut(1)]

    def counts(self, keep: float | None, original: int, depth: int) -> Any:
        return [3]

    def score(self, stage: int, view: View) -> Tensor:
        return self.scores(view)


Scored.name = "scored"


def one_nan(view: View) -> Tensor:
    scores = torch.zeros(view.present.shape)
    scores[-1, -1] = float("nan")
    return scores


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (one_nan, "scored.score returned NaN at stage 0"),
        (lambda view: torch.zeros(view.present.shape[1]), "returned shape .16,., expected"),
        (lambda view: torch.zeros(len(view.present), 15), "returned shape .*15"),
        (lambda view: torch.zeros(*view.present.shape, 1), "returned shape .*16, 1"),
    ],
    ids=["nan", "no-images", "too-few", "too-deep"],
)
def test_scores_that_are_none(llava: Case, scores: Callable[[View], Tensor], words: str) -> None:
    inputs = llava.prompts.rows(2)
    before = plain(llava.model, inputs)
    with prunus.prune(llava.model, Scored(scores)):
        with pytest.raises(ValueError, match=words):
            plain(llava.model, inputs)
    assert torch.equal(plain(llava.model, inputs), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.bool, torch.float64])
def test_scores_of_any_dtype_with_ties_and_infinities(llava: Case, dtype: torch.dtype) -> None:
    inputs = llava.prompts.rows(1)

    def some(view: View) -> Tensor:
        return (torch.arange(view.present.shape[1]) % 4 == 2).to(dtype).expand(view.present.shape)

    with prunus.prune(llava.model, Scored(some)) as run:
        plain(llava.model, inputs)
    assert run.trace[0].kept[0][0].tolist() == [2, 6, 10]

    def endless(view: View) -> Tensor:
        return torch.full(view.present.shape, -torch.inf).index_fill(
            1, torch.tensor([9]), torch.inf
        )

    with prunus.prune(llava.model, Scored(endless)) as run:
        plain(llava.model, inputs)
    assert run.trace[0].kept[0][0].tolist() == [0, 1, 9]
