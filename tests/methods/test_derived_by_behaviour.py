"""Every column of docs/methods.md, proved by what each method does on a model."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest
import torch

import prunus
from prunus.errors import PrunusError
from prunus.method import methods
from prunus.method.derived import derived
from prunus.results.trace import TraceEntry
from prunus.selector.learned import Learned
from tests.methods.test_derived import FORCED
from tests.support.facts import counts
from tests.support.llava import DEPTH
from tests.support.models import Case, case_of
from tests.support.random_selectors import RandomOneShot, RandomStepwise

LEARNED: dict[str, list[Any]] = {
    "one-shot": [RandomOneShot(keep=5)],
    "stepwise": [RandomStepwise(keep=5), RandomStepwise(bias=-1.0)],
}


def chosen() -> dict[str, Any]:
    """Every method at some setting that acts, by an id."""
    found = {}
    for name, cls in methods().items():
        fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        default = [cls(keep=5 / 9)] if "keep" in fields and not issubclass(cls, Learned) else []
        settings = LEARNED.get(name) or FORCED.get(name) or default or [cls()]
        found |= {f"{name}-{number}": method for number, method in enumerate(settings)}
    return found


METHODS = chosen()


def trace_of(case: Case, method: Any, inputs: dict[str, Any]) -> list[TraceEntry]:
    """What one prompt leaves."""
    with torch.no_grad(), warnings.catch_warnings(), prunus.prune(case.model, method) as run:
        warnings.simplefilter("ignore")  # an adaptive method may find nothing to do
        case.model(**inputs)
    return list(run.trace)


def kept(trace: list[TraceEntry]) -> list[tuple[int, ...]]:
    """Of the first image, stage by stage."""
    return [tuple(entry.kept[0][0].tolist()) for entry in trace]


@pytest.mark.parametrize("name", METHODS)
def test_it_acts_where_it_says(name: str) -> None:
    case, method = case_of("llava-clip"), METHODS[name]
    places = derived(method, DEPTH)["places"]
    words = {"encoder": "vision tower", "features": "before the language model"}
    layers, edited = set(), set()
    found = set()
    for entry in trace_of(case, method, case.prompts.rows(1)):
        edited |= set(entry.edits)
        if entry.place in words:
            found.add(words[entry.place])
        elif entry.place == "decoder":
            layers.add(entry.layer)
    said = {place for place in places if place in words.values()}
    assert found == said
    at = [place for place in places if place.startswith("decoder layer")]
    assert bool(layers) <= bool(at)
    if derived(method, DEPTH)["count"] != "own":  # which may find nothing at some of its layers
        assert layers == {cut.layer for cut in method.cuts(DEPTH) if cut.layer is not None}
    else:
        assert layers <= {cut.layer for cut in method.cuts(DEPTH)}
    assert bool(edited) == any(place.startswith("attention") for place in places)


@pytest.mark.parametrize("name", METHODS)
def test_its_count_is_known_in_advance_if_it_says_so(name: str) -> None:
    """Of several pictures as many are kept as the budget says before anything runs; where a method
    finds its own count, no such number is to be had."""
    case, method = case_of("llava-clip"), METHODS[name]
    if derived(method, DEPTH)["count"] == "all":
        assert all(len(own) == 16 for own in kept(trace_of(case, method, case.prompts.rows(1))))
        return
    if derived(method, DEPTH)["count"] == "own":
        with pytest.raises(AssertionError):
            counts(method, 16, DEPTH)
        return
    expected = list(counts(method, 16, DEPTH))
    for seed in range(3):
        inputs = case.prompts.rows(1)
        inputs["pixel_values"] = torch.randn(
            inputs["pixel_values"].shape, generator=torch.Generator().manual_seed(seed)
        )
        found = [len(own) for own in kept(trace_of(case, method, inputs))]
        assert found[-1] == expected[-1]
        assert found == expected or derived(method, DEPTH)["places"][0] == "vision tower"


@pytest.mark.parametrize("name", METHODS)
def test_it_merges_if_it_says_so(name: str) -> None:
    """What goes becomes part of what stays, or is gone."""
    case, method = case_of("llava-clip"), METHODS[name]
    trace = trace_of(case, method, case.prompts.rows(1))
    joined = [
        entry
        for entry in trace
        if entry.merged_into is not None
        and (entry.merged_into[0][0] >= 0).sum() > len(entry.kept[0][0])
    ]
    assert bool(joined) == derived(method, DEPTH)["merges"]


@pytest.mark.parametrize("name", METHODS)
def test_it_goes_by_cls_if_it_says_so(name: str) -> None:
    """The query of CLS alone is turned round in the last block that reaches the projector: no patch
    changes there, so only a method that looks at CLS may choose otherwise."""
    case, method = case_of("llava-clip"), METHODS[name]
    inputs = case.prompts.rows(1)
    tower = prunus.families.family_of(case.model).tower_adapter()
    query = tower.blocks[tower.read - 1].self_attn.q_proj
    seen = {tuple(kept(trace_of(case, method, inputs)))}
    for factor in (-4.0, 6.0, -9.0):

        def turned(
            module: Any, args: Any, output: torch.Tensor, factor: float = factor
        ) -> torch.Tensor:
            return torch.cat([factor * output[:, :1], output[:, 1:]], dim=1)

        handle = query.register_forward_hook(turned)
        seen.add(tuple(kept(trace_of(case, method, inputs))))
        handle.remove()
    assert (len(seen) > 1) == derived(method, DEPTH)["cls"]


@pytest.mark.parametrize("name", sorted(methods()))
def test_it_needs_what_it_says(name: str) -> None:
    """A model that nobody trained or measured anything for."""
    case, cls = case_of("llava-clip"), methods()[name]
    if name == "fixed":
        pytest.skip("it is told what to keep")
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    method = cls(keep=5 / 9) if "keep" in fields else cls()
    needs = derived(method, DEPTH)["needs"]
    if needs == "selector":
        with pytest.raises(PrunusError, match="selector"):
            prunus.prune(case.model, method)
    else:
        trace_of(case, method, case.prompts.rows(1))
        assert (needs == "calibration") == bool(method.measured)
