"""Pruned caches in the hands of programs that treat them like any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Knockout, Method, Random, Uniform
from tests.support.decoder_list import DECODERS
from tests.support.decoders import build
from tests.support.llava import Prompts
from tests.support.models import Case
from tests.support.runs import gap

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


@pytest.mark.parametrize("queries", [1, 2])
@pytest.mark.parametrize("method", METHODS, ids=range(4))
def test_a_4d_mask_of_another_size(llava: Case, method: Method, queries: int) -> None:
    """What is held, one too few, one too many: the caller must mean all of them."""
    inputs = llava.prompts.rows(1, 2)
    length = inputs["input_ids"].shape[1]
    tokens = torch.full((2, queries), 41)
    for rows, columns in ((queries, 20), (queries, length), (queries, 99), (3, length + queries)):
        mask = torch.ones(2, 1, rows, columns, dtype=torch.bool)
        with prunus.prune(llava.model, method), torch.no_grad():
            cache = llava.model(**inputs).past_key_values
            with pytest.raises(prunus.PrunusError, match="attention_mask has shape"):
                llava.model(input_ids=tokens, attention_mask=mask, past_key_values=cache)


def test_a_4d_mask_on_a_full_window() -> None:
    """The unmodified model cannot do it either."""
    decoder = next(one for one in DECODERS if one.model_type == "mistral")
    model, inputs = build(decoder, "sdpa"), Prompts(0).rows(1)
    mask = torch.ones(1, 1, 1, inputs["input_ids"].shape[1] + 1, dtype=torch.bool)
    last = {"input_ids": torch.tensor([[41]]), "attention_mask": mask}
    with torch.no_grad(), pytest.raises(RuntimeError):
        model(**last, past_key_values=model(**inputs).past_key_values)
    with prunus.prune(model, METHODS[0]), torch.no_grad():
        cache = model(**inputs).past_key_values
        with pytest.raises(prunus.PrunusError, match="sliding window is full"):
            model(**last, past_key_values=cache)
