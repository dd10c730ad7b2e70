"""torch's default dtype is for new tensors of the user: no method may choose by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import Random
from prunus.families import family_of
from prunus.selector.store import load_selector, save_selector
from prunus.signals.influence import leave_one_out
from tests.support.default_dtype import default_dtype
from tests.support.models import Case
from tests.support.random_selectors import random_selector, selector_for
from tests.support.runs import gap
from tests.support.settings import LATER, settings


def test_a_random_subset_is_the_same() -> None:
    """Of 576 random numbers in bfloat16 many are equal, and ties would go to the lower index."""
    view: Any = type("Seen", (), {"present": torch.arange(576)[None]})()
    expected = Random().score(0, view)
    with default_dtype(torch.bfloat16):
        assert torch.equal(Random().score(0, view), expected)


#: Without learned selectors, which settings draw anew, in the default dtype: see the last test.
FIRST = [
    name for name in settings() if name not in LATER and not name.startswith(("one-", "stepwise"))
]


@pytest.mark.parametrize("name", FIRST)
def test_every_method_chooses_the_same(llava: Case, name: str) -> None:
    inputs, method = llava.prompts.rows(1), settings()[name]
    with prunus.prune(llava.model, method) as run, torch.no_grad():
        expected = llava.model(**inputs).logits
    for dtype in (torch.bfloat16, torch.float64):
        with default_dtype(dtype), prunus.prune(llava.model, method) as again, torch.no_grad():
            assert gap(llava.model(**inputs).logits, expected) < 1e-4
        assert len(run.trace) == len(again.trace)
        for one, other in zip(run.trace, again.trace, strict=True):
            assert one.kept[0][0].tolist() == other.kept[0][0].tolist()


def test_a_vanishing_output_is_no_division_by_zero() -> None:
    """The only value is zero: its absence changes nothing, and no cosine is NaN."""
    query, key = torch.ones(1, 2, 1, 4), torch.ones(1, 2, 3, 4)
    visible = torch.ones(1, 3, dtype=torch.bool)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        with default_dtype(dtype):
            cosine, change, whole = leave_one_out(query, key, torch.zeros(1, 2, 3, 4), visible, 0.5)
        for found in (cosine, change, whole):
            assert not bool(found.isnan().any()) and found.dtype == torch.float32


def test_a_selector_is_loaded_and_made_in_single_precision(case: Case, tmp_path: Any) -> None:
    """Weights, and the fingerprint of the model that they are for."""
    family = family_of(case.model)
    selector, card = selector_for(family)
    save_selector(tmp_path, selector, card)
    with default_dtype(torch.bfloat16):
        again, _ = load_selector(tmp_path, family)
        fresh = random_selector()
    assert {weight.dtype for weight in (*again.parameters(), *fresh.parameters())} == {
        torch.float32
    }
    for (name, one), other in zip(selector.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name
