"""What a report says of every family, against what torch counts and what the cache holds: the
language model, tower and projector, and choosing; unpruned and pruned."""

from __future__ import annotations

from typing import Any

import pytest

from prunus.families import families, family_of
from prunus.pruners.divprune import DivPrune
from tests.support.family_checks import assert_costs
from tests.support.family_invariants import case_of
from tests.support.kinds import kinds

KINDS = {kind.name: kind for kind in kinds()}


def prompts() -> list[Any]:
    """Pictures of every kind of model; videos of those that take some."""
    found = [pytest.param(name, "I") for name in KINDS]
    videos = [name for name, kind in KINDS.items() if kind.video]
    return found + [pytest.param(name, "V", marks=pytest.mark.full) for name in videos]


def test_every_family_is_here() -> None:
    found = {family_of(kind.build()[0]).name for kind in KINDS.values()}
    assert found == set(families())


@pytest.mark.parametrize(("name", "signs"), prompts())
def test_a_report_says_what_torch_counts(name: str, signs: str) -> None:
    kind = KINDS[name]
    model, processor = kind.build()
    inputs = case_of(kind, (model, processor), signs).prompts.rows(1)
    del inputs["attention_mask"]
    model.set_experts_implementation("eager")  # products that torch's counter knows
    report = assert_costs(model, inputs, DivPrune(keep=3))
    assert report["uncounted"] == {} and report["flops"]["pruned"]["method"] > 0
