"""Rows and edits by each rule that an attention function may have, against a plain softmax."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunus import Edit
from prunus.engine.attention import Given
from prunus.engine.edit import Job, Places

HEADS, SHARED, SIZE, WIDTH = 4, 2, 6, 8


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


QUERY = 2 * randn(2, HEADS, SIZE, WIDTH, seed=1)
KEY, VALUE = (randn(2, SHARED, SIZE, WIDTH, seed=seed) for seed in (2, 3))
CAUSAL = torch.ones(SIZE, SIZE).tril().bool()
HIDDEN = torch.finfo(torch.float32).min
RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "scaling": {"scaling": 0.7},
    "softcap": {"softcap": 1.5},
    "sinks": {"s_aux": randn(HEADS, seed=4)},
    "position_bias": {"position_bias": randn(1, HEADS, SIZE, SIZE, seed=5)},
}
MASKS: dict[str, Tensor] = {
    "bool": CAUSAL[None, None].expand(2, -1, -1, -1),
    "added": torch.where(CAUSAL, randn(2, 1, SIZE, SIZE, seed=6), HIDDEN),
}


def literal(rest: dict[str, Any], mask: Tensor) -> Tensor:
    """Float32 ``[B, H, Q, K]``, weights of all queries, one rule after the other."""
    logits = QUERY @ KEY.repeat_interleave(HEADS // SHARED, 1).transpose(2, 3)
    logits = logits * rest.get("scaling", WIDTH**-0.5)
    if "softcap" in rest:
        logits = rest["softcap"] * (logits / rest["softcap"]).tanh()
    if "position_bias" in rest:
        logits = logits + rest["position_bias"]
    logits = logits.masked_fill(~mask, HIDDEN) if mask.dtype == torch.bool else logits + mask
    weights = logits.exp()
    total = weights.sum(-1, keepdim=True)
    if "s_aux" in rest:
        total = total + rest["s_aux"].exp()[None, :, None, None]
    return weights / total


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **rest: Any
) -> tuple[Tensor, None]:
    """The function of a model: ``[B, Q, H, d]``."""
    weights = literal(rest, mask)
    out = weights @ value.repeat_interleave(HEADS // SHARED, 1)
    return out.transpose(1, 2), None


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("rest", RULES.values(), ids=RULES)
def test_rows(rest: dict[str, Any], mask: Tensor) -> None:
    given = Given(nn.Module(), QUERY, KEY, VALUE, mask, rest, "eager")
    index = torch.tensor([[5, 2, 3], [0, 4, 5]])
    expected = literal(rest, mask)
    for row, wanted in enumerate(index):
        assert (given.weights(index)[row] - expected[row][:, wanted]).abs().max() < 1e-6


@pytest.mark.parametrize("backend", ["sdpa", "flash_attention_2"])
def test_rows_without_a_mask(backend: str) -> None:
    """No mask means causal; a window is FlashAttention's own, which is told of it in words."""
    rest = {"sliding_window": 3}
    given = Given(nn.Module(), QUERY, KEY, VALUE, None, rest, backend)
    window = CAUSAL & ~CAUSAL.tril(-3) if "flash" in backend else CAUSAL
    index = torch.arange(SIZE).expand(2, -1)
    assert (given.weights(index) - literal({}, window[None, None])).abs().max() < 1e-6


def test_rows_under_a_flat_mask() -> None:
    """FlashAttention's: keys that are padding, for every query."""
    there = torch.tensor([[False, True, True, True, True, True], [True] * SIZE])
    given = Given(nn.Module(), QUERY, KEY, VALUE, there.int(), {}, "flash_attention_2")
    index = torch.arange(1, SIZE).expand(2, -1)
    expected = literal({}, CAUSAL[None, None] & there[:, None, None])[:, :, 1:]
    assert (given.weights(index) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("rest", RULES.values(), ids=RULES)
@pytest.mark.parametrize("renormalise", [False, True])
def test_edits(
    rest: dict[str, Any], mask: Tensor, renormalise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text behind two visual tokens loses them: their weight goes, or to those that are left. The
    last token is of an answer that is known, and keeps them."""
    monkeypatch.setattr("prunus.engine.edit.own_attention", lambda backend, module: attention)
    visual = torch.zeros(2, SIZE, dtype=torch.bool)
    visual[:, 1:3] = True
    text = torch.zeros_like(visual)
    text[:, 3:5] = True
    job = Job(Edit(text="cut", renormalise=renormalise), Places(visual, text, None, True), "eager")
    found = job.attend(nn.Module(), QUERY, KEY, VALUE, mask, rest)
    if renormalise:
        closed = CAUSAL.clone()
        closed[3:5, 1:3] = False
        lost = mask & closed if mask.dtype == torch.bool else mask.masked_fill(~closed, HIDDEN)
        weights = literal(rest, lost)
    else:
        weights = literal(rest, mask).clone()
        weights[:, :, 3:5, 1:3] = 0
    expected = weights @ VALUE.repeat_interleave(HEADS // SHARED, 1)
    assert (found - expected.transpose(1, 2)).abs().max() < 1e-5


def test_half_of_three_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text loses the first of three visual tokens."""
    monkeypatch.setattr("prunus.engine.edit.own_attention", lambda backend, module: attention)
    visual = torch.zeros(2, SIZE, dtype=torch.bool)
    visual[:, 1:4] = True
    text = torch.zeros_like(visual)
    text[:, 4:] = True
    mask = MASKS["bool"]
    job = Job(Edit(text="half"), Places(visual, text, None, False), "eager")
    found = job.attend(nn.Module(), QUERY, KEY, VALUE, mask, {})
    weights = literal({}, mask).clone()
    weights[:, :, 4:, 1] = 0
    expected = weights @ VALUE.repeat_interleave(HEADS // SHARED, 1)
    assert (found - expected.transpose(1, 2)).abs().max() < 1e-5
