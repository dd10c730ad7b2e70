"""Rows of a pruned cache that are reordered, chosen or repeated: what is known of them moves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import prunus
from prunus import Fixed
from tests.support.models import Case
from tests.support.oracles.masked import continued, positions
from tests.support.runs import gap

ORDER = torch.tensor([1, 0, 1])
CHANGES: dict[str, tuple[Callable[[Any], Any], list[int]]] = {
    "reordered": (lambda cache: cache.reorder_cache(ORDER[:2]), [1, 0]),
    "chosen": (lambda cache: cache.batch_select_indices(ORDER), [1, 0, 1]),
    "repeated": (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1]),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
@pytest.mark.parametrize("positions_", ["original", "compact"])
def test_a_step_on_other_rows(llava: Case, name: str, positions_: str) -> None:
    """Rows that keep different tokens, one of them padded: each goes on as it would have alone."""
    inputs = llava.prompts.rows(1, 2)
    token = torch.tensor([[41], [42]])
    full = continued(inputs, torch.cat([inputs["input_ids"], token], dim=1))
    where = positions(llava.model, full)[:, -1:]
    method = Fixed([[[0, 3, 9]], [[1, 2], [4, 5, 6]]], layer=None)
    change, rows = CHANGES[name]
    with prunus.prune(llava.model, method, positions=positions_), torch.no_grad():
        cache = llava.model(**inputs, use_cache=True).past_key_values
        other = copy.deepcopy(cache)
        change(other)

        def step(cache: Any, which: list[int]) -> Any:
            return llava.model(
                input_ids=token[which],
                attention_mask=full["attention_mask"][which],
                position_ids=where[which],
                past_key_values=cache,
            ).logits

        expected = step(cache, [0, 1])
        found = step(other, rows)
    assert gap(found, expected[rows]) < 1e-5
    assert gap(expected[0], expected[1]) > 1e-3
