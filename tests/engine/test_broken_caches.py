"""Pruned caches in the hands of programs that treat them like any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Knockout, Method, Random, Uniform
from tests.conftest import Case
from tests.engine.test_invariants import gap

METHODS: list[Method] = [
    Uniform(keep=5, layer=2),
    Uniform(keep=5, layer=None),
    Random(keep=4, layer=0),
    Knockout(layers=(1, 2), forget=True),
]


def step(case: Case, mask: Tensor, cache: Any) -> Tensor:
    """Logits of one more token in every row; ``mask`` is that of the prompt."""
    rows = len(mask)
    tokens = torch.arange(40, 40 + rows)[:, None]
    longer = torch.cat([mask, mask.new_ones(rows, 1)], 1)
    logits: Tensor = case.model(
        input_ids=tokens, attention_mask=longer, past_key_values=cache
    ).logits
    return logits


@pytest.mark.parametrize("images", [(0, 0, 0), (1, 0, 1)], ids=["text", "images"])
@pytest.mark.parametrize("method", METHODS, ids=range(4))
def test_a_cache_that_was_reset_is_like_a_new_one(
    llava: Case, method: Method, images: tuple[int, ...]
) -> None:
    """Also for another number of rows, and for text alone."""
    first, then = llava.prompts.rows(1, 2), llava.prompts.rows(*images)
    with prunus.prune(llava.model, method), torch.no_grad():
        used = llava.model(**first).past_key_values
        used.reset()
        found, expected = (
            llava.model(**then, past_key_values=used),
            llava.model(**then),
        )
        assert gap(found.logits, expected.logits) == 0
        after = [
            step(llava, then["attention_mask"], out.past_key_values) for out in (found, expected)
        ]
    assert gap(*after) == 0


@pytest.mark.parametrize("indices", [[1, 0, 1], torch.tensor([1]), torch.tensor([False, True])])
@pytest.mark.parametrize("method", METHODS, ids=range(4))
def test_rows_are_selected_by_whatever_selects_rows(
    llava: Case, method: Method, indices: Any
) -> None:
    inputs = llava.prompts.rows(1, 2)
    rows = torch.arange(2)[indices]
    tokens, mask = torch.tensor([[40], [41]]), inputs["attention_mask"]
    longer = torch.cat([mask, mask.new_ones(2, 1)], 1)
    with prunus.prune(llava.model, method), torch.no_grad():
        cache = llava.model(**inputs).past_key_values
        expected = step(llava, mask, llava.model(**inputs).past_key_values)
        cache.batch_select_indices(indices)
        found = llava.model(
            input_ids=tokens[rows], attention_mask=longer[rows], past_key_values=cache
        ).logits
    assert gap(found, expected[rows]) < 1e-4
