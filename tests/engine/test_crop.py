"""Cropping a pruned cache: what was taken off is forgotten, visual tokens are never reached."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Method, Random, Uniform
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles.masked import continued, positions, visibility
from tests.support.runs import gap, masked_logits

# Every layer holds less than the prompt, so that every layer may refuse.
METHODS: dict[str, Method] = {
    "before": Uniform(keep=5, layer=None),
    "at-0": Random(keep=0.4, layer=0),
}
TOKENS = torch.tensor([[41, 42, 43], [44, 45, 46]])


class Continued:
    """Two rows, one padded on the left, and what their cache gives for further tokens."""

    def __init__(self, case: Case, method: Method) -> None:
        self.case, self.method = case, method
        self.inputs = case.prompts.rows(1, 2)
        self.full = continued(self.inputs, torch.cat([self.inputs["input_ids"], TOKENS], 1))
        self.where = positions(case.model, self.full)
        self.length = self.inputs["input_ids"].shape[1]
        spots = case.prompts.spots(self.inputs["input_ids"])
        self.spots = spots
        self.tail = self.length - 1 - max(row[-1][-1] for row in spots)

    def prompt(self) -> Any:
        where = self.where[..., : self.length]
        return self.case.model(**self.inputs, position_ids=where, use_cache=True).past_key_values

    def give(self, cache: Any, start: int, end: int) -> Tensor:
        """Logits of the tokens from ``start`` to ``end`` of the whole sequence."""
        logits: Tensor = self.case.model(
            input_ids=self.full["input_ids"][:, start:end],
            attention_mask=self.full["attention_mask"][:, :end],
            position_ids=self.where[..., start:end],
            past_key_values=cache,
        ).logits
        return logits

    def oracle(self, run: prunus.Run, start: int, prompt: int | None = None) -> Tensor:
        mask = self.full["attention_mask"]
        visible = visibility(run.trace, self.spots, mask, DEPTH, prompt or self.length)
        return masked_logits(self.case.model, self.full, visible, run.trace)[:, start:]


@pytest.fixture(params=sorted(METHODS))
def chat(request: pytest.FixtureRequest, case: Case) -> Continued:
    return Continued(case, METHODS[request.param])


def lengths(cache: Any) -> list[tuple[int, int]]:
    """Physical and logical length of each layer."""
    return [
        (layer.keys.shape[-2], cache.get_seq_length(number))
        for number, layer in enumerate(cache.layers)
    ]


def test_two_crops_are_one(chat: Continued) -> None:
    with prunus.prune(chat.case.model, chat.method) as run, torch.no_grad():
        whole = chat.prompt()
        before = lengths(whole)
        once, twice = copy.deepcopy(whole), copy.deepcopy(whole)
        once.crop(-4)
        for _ in range(4):
            twice.crop(-1)
        expected = [(held - 4, logical - 4) for held, logical in before]
        assert lengths(once) == lengths(twice) == expected
        start = chat.length - 4
        a, b = (chat.give(cache, start, chat.length + 3) for cache in (once, twice))
        assert lengths(twice) == [(held + 3, logical + 3) for held, logical in before]
    assert gap(a, b) < 1e-6
    assert gap(a, chat.oracle(run, start)) < 1e-4


def test_the_boundary_is_the_last_visual_token_and_moves_with_every_crop(chat: Continued) -> None:
    """As many tokens as stand behind the last image can go, in any number of steps."""
    with prunus.prune(chat.case.model, chat.method) as run, torch.no_grad():
        cache, found = chat.prompt(), []
        assert chat.tail >= 4
        for taken in (0, 1, 3):
            short = copy.deepcopy(cache)
            if taken:
                short.crop(-taken)
            before = lengths(short)
            with pytest.raises(ValueError, match="pruned part"):
                short.crop(-(chat.tail - taken + 1))
            assert lengths(short) == before  # nothing was taken off by what was refused
            short.crop(-(chat.tail - taken))
            assert lengths(short)[0][1] == chat.length - chat.tail
            with pytest.raises(ValueError, match="pruned part"):
                short.crop(-1)
            start = chat.length - chat.tail
            found.append(chat.give(short, start, chat.length + 3))
            # What was given again may be taken off again, and not a token more.
            short.crop(-(chat.tail + 3))
            with pytest.raises(ValueError, match="pruned part"):
                short.crop(-1)
    expected = chat.oracle(run, chat.length - chat.tail)
    assert all(gap(logits, expected) < 1e-4 for logits in found)


def test_a_crop_of_decoded_tokens_and_some_of_the_prompt(chat: Continued) -> None:
    with prunus.prune(chat.case.model, chat.method) as run, torch.no_grad():
        cache = chat.prompt()
        for number in range(3):
            chat.give(cache, chat.length + number, chat.length + number + 1)
        cache.crop(-5)  # three that were decoded, two of the prompt
        assert cache.get_seq_length() == chat.length - 2
        with pytest.raises(ValueError, match=f"at most {chat.tail - 2} tokens"):
            cache.crop(-(chat.tail - 1))
        found = chat.give(cache, chat.length - 2, chat.length + 3)
    assert gap(found, chat.oracle(run, chat.length - 2)) < 1e-4


def test_behind_right_padding_only_what_was_appended_can_go(case: Case) -> None:
    """The shorter row ends in padding, so that the rows of the cache do not end together."""
    inputs = case.prompts.rows(1, 2)
    mask = inputs["attention_mask"]
    ids, kinds = inputs["input_ids"].clone(), inputs.get("mm_token_type_ids")
    turned = mask.clone()
    for row in range(2):
        real = int(mask[row].sum())
        shift = mask.shape[1] - real
        ids[row], turned[row] = ids[row].roll(-shift), mask[row].roll(-shift)
        if kinds is not None:
            kinds[row] = kinds[row].roll(-shift)
    assert int(turned[:, -1].sum()) == 1
    given = {**inputs, "input_ids": ids, "attention_mask": turned}
    with prunus.prune(case.model, Uniform(keep=5, layer=None)), torch.no_grad():
        cache = case.model(**given, use_cache=True).past_key_values
        before = lengths(cache)
        with pytest.raises(ValueError, match="at most 0 tokens"):
            cache.crop(-1)
        assert lengths(cache) == before
        longer = torch.cat([turned, torch.ones(2, 2, dtype=turned.dtype)], 1)
        where = (longer.cumsum(1) - 1)[:, -2:]
        turn = {
            "input_ids": TOKENS[:, :2],
            "attention_mask": longer,
            "position_ids": where if kinds is None else where.expand(3, -1, -1),
            "past_key_values": cache,
        }
        first = case.model(**turn).logits
        with pytest.raises(ValueError, match="at most 2 tokens"):
            cache.crop(-3)
        cache.crop(-2)
        assert lengths(cache) == before
        again = case.model(**turn).logits
    assert torch.equal(first, again)


def test_cropping_nothing_and_the_wrong_way(chat: Continued) -> None:
    with prunus.prune(chat.case.model, chat.method), torch.no_grad():
        cache = chat.prompt()
        before = lengths(cache)
        cache.crop(0)
        assert lengths(cache) == before
        with pytest.raises(ValueError, match="negative"):
            cache.crop(3)


def test_a_refusal_comes_before_any_layer_has_changed(llava: Case) -> None:
    """Also where the first layers hold the whole prompt."""
    inputs = llava.prompts.rows(1)
    length = inputs["input_ids"].shape[1]
    with prunus.prune(llava.model, Uniform(keep=5, layer=3)), torch.no_grad():
        cache = llava.model(**inputs, use_cache=True).past_key_values
    lengths = [layer.keys.shape[-2] for layer in cache.layers]
    with pytest.raises(prunus.PrunusError, match="pruned part"):
        cache.crop(-(length - 1))
    with pytest.raises(prunus.PrunusStateError, match="inside `with prunus"), torch.no_grad():
        llava.model(input_ids=torch.tensor([[5]]), past_key_values=cache)
    assert [layer.keys.shape[-2] for layer in cache.layers] == lengths
    assert {layer.get_seq_length() for layer in cache.layers} == {length}
