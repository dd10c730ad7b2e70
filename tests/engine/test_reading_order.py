"""Tokens in the order in which they were picked: the language model called by hand reads the same.

Nothing here uses the engine for what is expected: embeddings of the unmodified model are put in
order by hand, run without a cache, and what is dropped later is hidden by masks.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import OneShot, Random, Selection, Stepwise, View
from tests.support.literal.stepwise import fitted, literal_orders
from tests.support.llava import DEPTH
from tests.support.models import Case, case_of
from tests.support.oracles.masked import continued, positions
from tests.support.runs import gap, plain

STEPS = 4
FIXED, ADAPTIVE = Stepwise(keep=6, order="picked"), Stepwise(bias=-2.0, order="picked")
CHAINS: dict[str, list[Any]] = {
    "alone": [ADAPTIVE],
    "a cut inside": [ADAPTIVE, Random(keep=3, layer=2)],
    "two cuts inside": [FIXED, Random(keep=4, layer=1), Random(keep=2, layer=3)],
    "a cut before": [FIXED, Random(keep=3, layer=None)],
}


def dense_embeds(case: Case, inputs: dict[str, Tensor]) -> Tensor:
    """What enters the unmodified language model, ``[B, L, D]``."""
    seen: list[Tensor] = []
    handle = case.model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    plain(case.model, inputs)
    handle.remove()
    return seen[0]


def reading(valid: list[bool], images: list[list[int]], orders: list[list[int]]) -> list[int]:
    """Logical positions of one row as they are read: text where it stands, and where an image
    begins its tokens as they were picked."""
    begins = {places[0]: number for number, places in enumerate(images)}
    visual = {place for places in images for place in places}
    read = []
    for place, there in enumerate(valid):
        if place in begins:
            number = begins[place]
            read += [images[number][token] for token in orders[number]]
        elif there and place not in visual:
            read.append(place)
    return read


@torch.no_grad()
def by_hand(case: Case, embeds: Tensor, where: Tensor, gone: dict[int, set[int]]) -> Tensor:
    """Logits ``[S, V]`` of ``embeds [S, D]`` at positions ``where [.., S]``; from layer k on the
    slots in ``gone[k]`` are seen by none but themselves."""
    layers, handles = case.model.model.language_model.layers, []
    hidden: set[int] = set()
    for number, layer in enumerate(layers):
        hidden = hidden | gone.get(number, set())
        mask = torch.ones(len(embeds), len(embeds)).tril().bool()
        mask[:, sorted(hidden)] = False
        mask = (mask | torch.eye(len(embeds)).bool())[None, None]

        def use(module: Any, args: Any, kwargs: Any, mask: Tensor = mask) -> Any:
            return args, {**kwargs, "attention_mask": mask}

        handles.append(layer.register_forward_pre_hook(use, with_kwargs=True))
    lm = case.model.model.language_model
    states = lm(inputs_embeds=embeds[None], position_ids=where[..., None, :], use_cache=False)
    for handle in handles:
        handle.remove()
    logits: Tensor = case.model.lm_head(states.last_hidden_state)[0]
    return logits


def check(case: Case, first: Any, *later: Any, policy: str = "original") -> None:
    """Prefill and cached decode steps of a padded batch, row by row."""
    method, inputs = fitted(case, first), case.prompts.rows(2, 1)
    ids, length = inputs["input_ids"], inputs["input_ids"].shape[1]
    with prunus.prune(case.model, [method, *later], positions=policy) as run:
        out = case.model.generate(
            **inputs,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        trace = run.trace
        with torch.no_grad():
            where = positions(case.model, inputs)
            prefill = case.model(**inputs, position_ids=where).logits
        assert [[t.tolist() for s in e.kept for t in s] for e in run.trace] == [
            [t.tolist() for s in e.kept for t in s] for e in trace
        ]
    full = continued(inputs, out.sequences)
    where = positions(case.model, full)
    embeds, words = dense_embeds(case, inputs), case.model.get_input_embeddings()
    picked = literal_orders(case, inputs, method)
    if first.order == "original":
        picked = [[sorted(image) for image in row] for row in picked]
    for row, images in enumerate(case.prompts.spots(ids)):
        orders = picked[row]
        for entry in trace[1:]:  # cuts before the language model leave the rest in its order
            if entry.layer is None:
                own = [set(kept.tolist()) for kept in entry.kept[row]]
                orders = [[t for t in o if t in k] for o, k in zip(orders, own, strict=True)]
        read = reading(inputs["attention_mask"][row].bool().tolist(), images, orders)
        gone: dict[int, set[int]] = {}
        for entry in trace[1:]:
            if entry.layer is not None:
                lost = {
                    places[token]
                    for places, kept in zip(images, entry.kept[row], strict=True)
                    for token in set(range(len(places))) - set(kept.tolist())
                }
                gone[entry.layer] = {slot for slot, place in enumerate(read) if place in lost}
        answer = out.sequences[row, length:]
        states = torch.cat([embeds[row, read], words(answer)])
        read_all = [*read, *range(length, length + STEPS)]
        at = where[..., row, read_all] if policy == "original" else torch.arange(len(read_all))
        expected = by_hand(case, states, at, gone)
        alive = [s for s in range(len(read)) if all(s not in slots for slots in gone.values())]
        assert gap(prefill[row, [read[s] for s in alive]], expected[alive]) < 1e-4
        for step, logits in enumerate(out.logits):
            assert gap(logits[row], expected[len(read) - 1 + step]) < 1e-4


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_equals_the_language_model_called_by_hand(case: Case, chain: list[Any]) -> None:
    check(case, *chain)


def test_compact_positions_are_contiguous_in_the_order_read(llava: Case) -> None:
    check(llava, FIXED, policy="compact")
    check(llava, Stepwise(keep=6), policy="compact")
    check(llava, *CHAINS["a cut before"], policy="compact")


def test_the_hand_agrees_with_the_original_order(llava: Case) -> None:
    """The oracle itself: an ascending order is what Fixed makes."""
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, prunus.Fixed([1, 4, 9], layer=None)):
        expected = plain(llava.model, inputs)
    images = llava.prompts.spots(inputs["input_ids"])[0]
    read = reading([True] * inputs["input_ids"].shape[1], images, [[1, 4, 9]])
    embeds = dense_embeds(llava, inputs)[0, read]
    assert gap(by_hand(llava, embeds, torch.tensor(read), {}), expected[0, read]) < 1e-4


def test_all_tokens_in_another_order(case: Case) -> None:
    check(case, Stepwise(keep=1.0, order="picked"))


def test_the_order_changes_what_is_said(case: Case) -> None:
    inputs, found = case.prompts.rows(1), []
    for order in ("picked", "original"):
        with prunus.prune(case.model, fitted(case, Stepwise(keep=6, order=order))) as run:
            found.append(plain(case.model, inputs)[:, -1])
        kept = run.trace[0].kept[0][0].tolist()
        assert kept == sorted(kept)  # a trace names tokens, whatever their order
    assert gap(*found) > 1e-3


class Shuffled(Random):
    """A selection whose order holds other tokens than it keeps, or one made too late."""

    def select(self, stage: int, view: View) -> Selection:
        kept = torch.arange(3).expand(len(view.owners), -1)
        return Selection(kept, order=[torch.tensor([2, 0, 3 if self.seed else 1])] * len(kept))


def test_refused_orders() -> None:
    case = case_of("llava-clip")
    inputs = case.prompts.rows(1)
    before = plain(case.model, inputs)
    for method, words in (
        (Shuffled(keep=3, layer=2), "reorders tokens inside the language model"),
        (Shuffled(keep=3, layer=None, seed=1), "order and kept are not the same tokens"),
    ):
        with prunus.prune(case.model, method):
            with pytest.raises(ValueError, match=words):
                plain(case.model, inputs)
    assert torch.equal(plain(case.model, inputs), before)
    assert len(case.model.model.language_model.layers) == DEPTH
    with pytest.raises(ValueError, match="no parameter order"):
        prunus.prune(case.model, "one-shot", order="picked")
    assert not hasattr(OneShot(), "order")
