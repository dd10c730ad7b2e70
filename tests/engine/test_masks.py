"""Masks gathered for what is left, entry by entry."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from prunus.engine.cache import Lease, PrunedWindowLayer, Resident
from prunus.engine.decode import Resume
from prunus.engine.gathered import Gathered
from prunus.engine.layout import Layout
from prunus.engine.masks import Slots, gather_mask
from prunus.errors import PrunusError

LENGTH = 6
LEFT = torch.tensor([[0, 0, 3, 5], [0, 2, 4, 5]])  # the first slot of row 0 fills it up
VALID = torch.tensor([[False, True, True, True], [True] * 4])
STATES = torch.zeros(2, 4, 8)
MIN = torch.finfo(torch.float32).min


def gathered(mask: Any, backend: str, valid: Tensor | None = VALID) -> Any:
    return gather_mask(mask, Slots(LEFT, LEFT, valid, square=True), backend, True, STATES)


def expected(see: Tensor, valid: Tensor | None = VALID) -> Tensor:
    """Bool ``[B, 1, Q, K]`` of ``see [B, L, L]``: padding is seen by none but itself."""
    out = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    for row, query, key in itertools.product(range(2), range(4), range(4)):
        there = valid is None or bool(valid[row, key])
        seen = bool(see[row, LEFT[row, query], LEFT[row, key]])
        same = bool(LEFT[row, query] == LEFT[row, key]) and not there
        out[row, 0, query, key] = (seen and there) or same
    return out


@pytest.mark.parametrize("valid", [VALID, None])
def test_a_bool_mask(valid: Tensor | None) -> None:
    see = torch.rand(2, LENGTH, LENGTH, generator=torch.Generator().manual_seed(1)) < 0.6
    assert torch.equal(gathered(see[:, None], "sdpa", valid), expected(see, valid))


def test_no_row_of_a_bool_mask_is_empty() -> None:
    """What fills a row up sees itself, also where the model hides all from the token there."""
    see = torch.zeros(2, LENGTH, LENGTH, dtype=torch.bool)
    found = gathered(see[:, None], "sdpa")
    assert bool(found[0, 0, 0].any()) and not bool(found[:, 0, 2:].any())


def test_an_added_mask() -> None:
    mask = torch.randn(2, 1, LENGTH, LENGTH, generator=torch.Generator().manual_seed(2))
    found = gathered(mask, "eager")
    for row, query, key in itertools.product(range(2), range(4), range(4)):
        own = mask[row, 0, LEFT[row, query], LEFT[row, key]]
        same = bool(LEFT[row, query] == LEFT[row, key])
        hidden = not bool(VALID[row, key]) and not same
        assert found[row, 0, query, key] == (MIN if hidden else own)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_no_mask_is_causal(backend: str) -> None:
    see = torch.ones(LENGTH, LENGTH).tril().bool().expand(2, -1, -1)
    found = gathered(None, backend)
    wanted = expected(see)
    if backend == "eager":
        assert found.dtype == torch.float32 and set(found.unique().tolist()) <= {MIN, 0.0}
        found = found == 0
    assert torch.equal(found, wanted)
    assert gathered(None, "sdpa", None) is None  # what the kernel does by itself


def test_no_mask_for_a_turn_on_a_cache() -> None:
    """Two tokens behind what is left of a prompt: each sees itself and what stands before it."""
    query, key = torch.tensor([[6, 7]]), torch.tensor([[1, 3, 6, 7]])
    found = gather_mask(None, Slots(query, key, None, first_row=6), "sdpa", True, STATES[:1])
    assert found[0, 0].tolist() == [[True, True, True, False], [True] * 4]


def test_columns_before_the_first_are_out_of_the_window() -> None:
    """A step of a layer whose mask begins at column 2: what stands before it is seen by nobody."""
    key = torch.tensor([[0, 1, 3, 4], [1, 2, 3, 4]])
    slots = Slots(torch.tensor([[4], [4]]), key, None, first_row=4, first_column=2)
    found = gather_mask(torch.ones(2, 1, 1, 3, dtype=torch.bool), slots, "sdpa", True, STATES)
    assert found[:, 0, 0].tolist() == [[False, False, True, True], [False, True, True, True]]


def test_flash_attention_is_told_of_padding_only() -> None:
    """The model's padding, and ours."""
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1]])
    found = gathered(mask, "flash_attention_2")
    assert found.tolist() == [[False, True, True, True], [False, False, True, True]]
    assert torch.equal(gathered(None, "flash_attention_2"), VALID)
    assert gathered(None, "flash_attention_2", None) is None
    with pytest.raises(PrunusError, match="2-D mask"):
        gathered(mask[:, None, None], "flash_attention_2")


def test_flash_attention_gets_no_mask_once_padding_is_gone() -> None:
    """Behind a cut of prompts that were padded by different lengths: nothing is hidden any more, so
    that it need not pack the rows; what the caller hides stays hidden."""
    present = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 1, 1, 1]]).bool()
    layout = Layout.full(torch.ones(2, 5).bool()).keep(present, [3, 3])
    mask, states = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]), STATES[:2]
    made = Gathered(Layout.full(torch.ones(2, 5).bool()))
    assert made.mask(mask.bool(), layout, "flash_attention_2", True, states) is None
    hides = mask.clone()
    hides[0, 3] = 0
    found = made.mask(hides, layout, "flash_attention_2", True, states)
    assert found.tolist() == [[True, False, True], [True, True, True]]


def test_a_mask_of_another_form() -> None:
    for mask in (torch.ones(2, LENGTH), object()):
        with pytest.raises(PrunusError, match="cannot be gathered"):
            gathered(mask, "sdpa")


@pytest.mark.parametrize("window", [3, 4, 5, 20])
def test_a_step_without_a_mask_in_a_window(window: int) -> None:
    """Six tokens, of which each row has three left: a model that gives no mask for the next one
    sees what the window reaches, itself included."""
    place = torch.tensor([[1, 3, 4], [3, 4, 5]])
    held = torch.zeros(2, 2, 3, 8)
    layer = PrunedWindowLayer(held, held, Resident(place, LENGTH, None, 1), window)
    assert layer.physical == min(3, window - 1)  # what the second row still sees
    cache = DynamicCache()
    cache.layers = [layer]
    family: Any = SimpleNamespace()
    resume = Resume(family, cache, STATES[:2, :1], None, "sdpa", Lease(), {})
    seen = LENGTH - layer.places(1) < window
    if resume.is_plain(0, (), {}):
        assert seen.all()
    else:
        mask = resume.layer(0, {}, True, STATES[:2, :1])["attention_mask"]
        assert torch.equal(mask[:, 0, 0], seen)
