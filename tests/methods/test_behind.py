"""Every method behind another that drops or merges: original indices are no places among the rest.

What is left has gaps, differs from image to image, and may be empty of what a method would have
chosen. Whatever stands behind keeps some of it, exactly as many as it should, and the model runs as
the masked full-length run does.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, MMR, EvoPrune, Fixed, Method, Random, Uniform
from prunus.results.events import in_order
from tests.support.facts import counts, in_tower, needs_grid, nominal
from tests.support.llava import DEPTH
from tests.support.models import Case, case_of
from tests.support.oracles.masked import visibility
from tests.support.runs import gap, masked_logits, plain, survivors
from tests.support.settings import settings

MORE = {
    "uniform-none": Uniform(keep=5, layer=None),
    "uniform-share": Uniform(keep=0.25, layer=0),
    "uniform-stride": Uniform(keep=5, pattern="stride"),
    "random-late": Random(keep=3, layer=3),
    "mmr-diverse": MMR(keep=5, weight=0.0),
}
# Fixed has tests of its own below; a method in the tower always comes first.
BEHIND = {
    name: method
    for name, method in (settings() | MORE).items()
    if not name.startswith("fixed")
    and not in_tower(method)
    # What an average comes to depends on what stands before.
    and not (method.averages and getattr(method, "keep", None) is not None)
}
FIRST: dict[str, Any] = {
    "random-before": Random(keep=0.6, layer=None, seed=3),
    "random-at-0": Random(keep=0.6, layer=0, seed=4),
    "fixed-before": "none",
    "fixed-at-0": 0,
    "evoprune": EvoPrune(keep=0.5),
}


@pytest.fixture(params=["llava-clip-full", "llava-siglip", "qwen2.5-vl-video"])
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def ragged(case: Case, inputs: dict[str, Tensor], layer: int | None) -> Fixed:
    """Some tokens of each image, other ones in each: the middle of one, a border of the next."""
    kept, number = [], 0
    for images in case.prompts.spots(inputs["input_ids"]):
        sample = []
        for places in images:
            count = len(places)
            chosen = (
                range(count // 4, count - 2),
                range(0, count, 2),
                range(count // 2, count),
            )[number % 3]
            sample.append(list(chosen))
            number += 1
        kept.append(sample)
    return Fixed(kept, layer=layer)


def first_of(case: Case, inputs: dict[str, Tensor], name: str) -> Method:
    given = FIRST[name]
    if isinstance(given, Method):
        return given
    return ragged(case, inputs, None if given == "none" else given)


def refusal(first: Method, behind: Method) -> str | None:
    """What the documentation says cannot be: methods that need the whole grid, behind others."""
    if not needs_grid(behind, DEPTH):
        return None
    if in_tower(first):
        own = type(behind).select is not Method.select
        return "needs the whole grid and makes its own selection" if own else None
    before_the_model = all(cut.layer is None for cut in behind.cuts(DEPTH))
    drops_later = all(cut.layer is not None for cut in first.cuts(DEPTH))
    return None if before_the_model and drops_later else "needs the whole grid of each image"


def exact(method: Method, stage: int, size: int, before: int) -> int | None:
    """How many of ``before`` tokens must be left of an image that had ``size``; None where the
    method finds its own count."""
    if "keep" not in {field.name for field in dataclasses.fields(method)}:  # type: ignore[arg-type]
        return None
    if nominal(method, size, DEPTH) is None:
        return None
    return min(counts(method, size, DEPTH)[stage], before)


def steps_of(methods: list[Method]) -> list[tuple[Method, int, int | None]]:
    """Method, stage and layer of all selections in running order: the tower, before the language
    model, then layer by layer; at one place in the order of the list."""
    steps = [
        (method, stage, cut.layer)
        for method in methods
        for stage, cut in enumerate(method.cuts(DEPTH))
    ]
    steps.sort(key=lambda step: -1 if step[2] is None else step[2])
    return [(method, 0, None) for method in methods if in_tower(method)] + steps


def check_trace(methods: list[Method], trace: list[Any]) -> None:
    """Each selection keeps some of what the one before it left, as many as it was asked for, and
    knows scores of exactly those that it could choose from."""
    entries = [entry for entry in in_order(trace) if entry.place != "attention"]
    left = [[set(range(grid.size)) for grid in sample] for sample in trace[0].grid]
    steps = iter(steps_of(methods))
    for entry in entries:
        method, stage = next(
            (method, stage)
            for method, stage, layer in steps
            if (method.name, layer) == (entry.method, entry.layer)
        )
        for row, sample in enumerate(entry.kept):
            for image, kept in enumerate(sample):
                before, size = left[row][image], entry.grid[row][image].size
                assert kept.tolist() == sorted(set(kept.tolist()))
                assert set(kept.tolist()) <= before
                if entry.place != "encoder":
                    count = exact(method, stage, size, len(before))
                    assert count is None or len(kept) == count
                    if entry.scores is not None:
                        known = (~entry.scores[row][image].isnan()).nonzero().flatten().tolist()
                        assert set(known) == before
                left[row][image] = set(kept.tolist())


@pytest.mark.parametrize("name", sorted(BEHIND))
@pytest.mark.parametrize("before", sorted(FIRST))
def test_keeps_some_of_the_rest_and_equals_the_oracle(case: Case, before: str, name: str) -> None:
    inputs = case.prompts.rows(2, 1)
    methods = [first_of(case, inputs, before), BEHIND[name]]
    if before == "fixed-at-0" and steps_of(methods)[0][0] is not methods[0]:
        pytest.skip("Fixed comes second here, and may name tokens that are gone: see below")
    if words := refusal(*methods):
        with pytest.raises(ValueError, match=words):
            prunus.prune(case.model, methods)
        return
    with prunus.prune(case.model, methods) as run, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an adaptive method may find nothing to do
        logits = plain(case.model, inputs)
    check_trace(methods, run.trace)
    spots, mask = case.prompts.spots(inputs["input_ids"]), inputs["attention_mask"]
    visible = visibility(run.trace, spots, mask, DEPTH, mask.shape[1])
    expected = masked_logits(case.model, inputs, visible, run.trace)
    assert gap(logits, expected, survivors(case, inputs, run.trace)) < 1e-4
    last = [entry for entry in in_order(run.trace) if entry.place != "attention"][-1]
    left = sum(len(kept) for sample in last.kept for kept in sample)
    assert run.report()["tokens"]["kept"] == left / len(last.kept)


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("before", sorted(FIRST))
def test_fixed_behind_others_speaks_of_original_tokens(
    case: Case, before: str, layer: int | None
) -> None:
    if layer is None and before.endswith("at-0"):
        pytest.skip("what acts before the language model comes first")
    inputs = case.prompts.rows(2, 1)
    first = first_of(case, inputs, before)
    with prunus.prune(case.model, first) as run:
        plain(case.model, inputs)
    left = run.trace[0].kept
    wanted = [[kept[1::2].tolist() for kept in sample] for sample in left]
    with prunus.prune(case.model, [first, Fixed(wanted, layer=layer)]) as run:
        plain(case.model, inputs)
    assert [[kept.tolist() for kept in sample] for sample in run.trace[-1].kept] == wanted
    gone = sorted(set(range(run.trace[0].grid[0][0].size)) - set(left[0][0].tolist()))
    wanted[0][0] = gone[:1]
    with prunus.prune(case.model, [first, Fixed(wanted, layer=layer)]):
        with pytest.raises(ValueError, match=f"wants tokens .{gone[0]}. of sample 0, image 0"):
            plain(case.model, inputs)


def test_three_in_a_row(case: Case) -> None:
    inputs = case.prompts.rows(1, 2)
    methods = [
        EvoPrune(keep=0.75),
        Random(keep=0.6, layer=None),
        CLSE(keep=0.5, score_type="residual", layers=(2,)),
        Uniform(keep=3, layer=3),
    ]
    with prunus.prune(case.model, methods) as run:
        logits = plain(case.model, inputs)
    assert len(run.trace) == 4
    check_trace(methods, run.trace)
    spots, mask = case.prompts.spots(inputs["input_ids"]), inputs["attention_mask"]
    visible = visibility(run.trace, spots, mask, DEPTH, mask.shape[1])
    expected = masked_logits(case.model, inputs, visible, run.trace)
    assert gap(logits, expected, survivors(case, inputs, run.trace)) < 1e-4


def test_a_row_does_not_depend_on_its_neighbours(case: Case) -> None:
    """Images of one grid and count are chosen together, though other tokens are left of each."""
    inputs = case.prompts.rows(1, 1)
    both = [ragged(case, inputs, 0), Uniform(keep=4)]
    with prunus.prune(case.model, both) as run:
        plain(case.model, inputs)
    for row in range(2):
        alone = case.prompts.one(inputs, row, trim=True)
        first = Fixed([[kept.tolist() for kept in run.trace[0].kept[row]]], layer=0)
        with prunus.prune(case.model, [first, both[1]]) as single:
            plain(case.model, alone)
        for together, own in zip(run.trace[1].kept[row], single.trace[1].kept[0], strict=True):
            assert torch.equal(together, own)
