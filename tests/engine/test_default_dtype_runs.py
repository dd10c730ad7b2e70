"""Whole runs under another default dtype of torch: the same tokens, scores and logits."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import MMR, Method, OneShot, Random, Stepwise, Uniform
from prunus.families import family_of
from tests.support.default_dtype import default_dtype
from tests.support.facts import proportional
from tests.support.models import Case
from tests.support.random_selectors import RandomOneShot, RandomStepwise, selector_for
from tests.support.runs import plain
from tests.support.settings import settings

METHODS: dict[str, Method] = {
    **settings(),
    "random-many": Random(keep=8, layer=1, seed=11),
    "mmr-diverse": MMR(keep=5, weight=0.0),
    "uniform-before": Uniform(keep=7, layer=None),
}


def chosen(case: Case, method: Method, inputs: dict[str, Tensor]) -> tuple[Any, Any, Tensor]:
    """Tokens and scores of every selection, and logits."""
    with prunus.prune(case.model, method) as run, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits = plain(case.model, inputs)
    kept = [[[t.tolist() for t in sample] for sample in entry.kept] for entry in run.trace]
    scores = [entry.scores for entry in run.trace]
    return kept, scores, logits


def drawn(method: Method, case: Case) -> Method:
    """The method with its random selector drawn now: random numbers depend on the default dtype."""
    for cls, plain_cls in ((RandomStepwise, Stepwise), (RandomOneShot, OneShot)):
        if isinstance(method, cls):
            own = {one.name: getattr(method, one.name) for one in dataclasses.fields(plain_cls)}
            kind = {"kind": "one-shot"} if plain_cls is OneShot else {}
            return plain_cls(**own).with_selector(*selector_for(family_of(case.model), **kind))
    return method


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=["bfloat16", "float64"])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_selections_do_not_depend_on_it(case: Case, name: str, dtype: torch.dtype) -> None:
    method, inputs = METHODS[name], case.prompts.rows(2, 1)
    if proportional(method) and not family_of(case.model).tower_adapter().takes_bias:
        pytest.skip("this tower's attention takes no bias, which the method needs")
    method = drawn(method, case)
    kept, scores, logits = chosen(case, method, inputs)
    with default_dtype(dtype):
        own, own_scores, own_logits = chosen(case, method, inputs)
    assert own == kept
    assert own_logits.dtype == logits.dtype
    for one, other in zip(own_scores, scores, strict=True):
        for images, wanted in zip(one or [], other or [], strict=True):
            for a, b in zip(images, wanted, strict=True):
                assert a.dtype == torch.float32 and torch.allclose(a, b, atol=1e-6, equal_nan=True)
