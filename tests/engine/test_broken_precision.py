"""Mixed and unusual precision: right, or refused for what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, Cut, EvoPrune, Fixed, Knockout, Method, View, VisiPruner
from prunus.method.signals import Attention
from tests.support.models import Case
from tests.support.runs import gap

SEEING: list[Method] = [
    CLSE(keep=5, variant="hybrid"),
    VisiPruner(stages=("middle",), shallow_layers=1, tokens_threshold=0.6, layer_threshold=2),
]
EDITING: list[Method] = [Knockout(layers=(0, 1)), Knockout(layers=(0, 1), renormalise=True)]


def mixed() -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@dataclass(frozen=True)
class Asked(Method):
    """Notes the precision of what a method computes."""

    keep: int = 5
    found: ClassVar[list[torch.dtype]] = []

    def cuts(self, depth: int) -> list[Cut]:
        return [Cut(2, (Attention(1),))]

    def score(self, stage: int, view: View) -> Tensor:
        states = view.states.float()
        self.found.append((states @ states.transpose(1, 2)).dtype)
        return view[Attention(1)]


Asked.name = "asked"  # not in the class, which would register it for every test


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("method", SEEING, ids=lambda method: method.name)
def test_looks_under_autocast(llava: Case, method: Method, backend: str) -> None:
    """They are not refused, and what they chose is what a replay gives."""
    llava.model.set_attn_implementation(backend)
    inputs = llava.prompts.rows(1, 2)
    with prunus.prune(llava.model, method) as run, torch.no_grad(), mixed():
        found = llava.model(**inputs, use_cache=False).logits[:, -1]
    again: list[Method] = [Fixed(entry.kept, layer=entry.layer) for entry in run.trace]
    with prunus.prune(llava.model, again), torch.no_grad(), mixed():
        assert gap(llava.model(**inputs, use_cache=False).logits[:, -1], found) == 0


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("method", EDITING, ids=["zeroed", "renormalised"])
def test_edits_under_autocast(llava: Case, method: Method, backend: str) -> None:
    """As close to float32 as the unmodified model comes."""
    llava.model.set_attn_implementation(backend)
    inputs = llava.prompts.rows(1, 2)

    def last() -> Tensor:
        logits: Tensor = llava.model(**inputs, use_cache=False).logits[:, -1]
        return logits

    with torch.no_grad():
        dense = last()
        with mixed():
            noise = gap(last(), dense)
        with prunus.prune(llava.model, method):
            with mixed():
                found = last()
            exact = last()
    assert gap(found, exact) < 3 * noise
    assert gap(dense, exact) > 5 * noise


def test_scores_keep_their_precision_under_autocast(llava: Case) -> None:
    Asked.found.clear()
    with prunus.prune(llava.model, Asked()), torch.no_grad(), mixed():
        llava.model(**llava.prompts.rows(1, 2))
    assert set(Asked.found) == {torch.float32}


def test_merges_keep_their_precision_under_autocast(
    llava: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, own = [], EvoPrune.merge

    def merge(self: EvoPrune, view: Any) -> Any:
        found.append(torch.is_autocast_enabled("cpu"))
        return own(self, view)

    monkeypatch.setattr(EvoPrune, "merge", merge)
    with prunus.prune(llava.model, EvoPrune(keep=0.5)), torch.no_grad(), mixed():
        llava.model(**llava.prompts.rows(1))
    assert found and not any(found)


def test_a_model_that_gives_nan_is_told_from_unknown_rules(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with torch.no_grad():
        llava.model.model.language_model.layers[0].self_attn.v_proj.weight[0, 0] = float("nan")
    for method in (*SEEING, *EDITING):
        with prunus.prune(llava.model, method), torch.no_grad():
            with pytest.raises(prunus.PrunusError, match="NaN or infinity"):
                llava.model(**inputs)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("method", [*SEEING, *EDITING], ids=range(4))
def test_double_precision(llava: Case, method: Method, backend: str) -> None:
    llava.model.set_attn_implementation(backend)
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, method), torch.no_grad():
        single = llava.model(**inputs).logits
    double = {**inputs, "pixel_values": inputs["pixel_values"].double()}
    with prunus.prune(llava.model.double(), method), torch.no_grad():
        assert gap(llava.model(**double).logits[:, -1], single[:, -1]) < 1e-4
