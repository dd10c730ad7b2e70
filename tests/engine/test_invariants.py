"""The invariants of the design, over every method and every kind of model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

import prunus
from prunus import Fixed, Method
from prunus.engine.cache import PrunedLayer
from prunus.families import family_of
from prunus.method import EditsAttention
from prunus.method.budget import Budget
from tests.support.facts import in_tower, nominal, proportional
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles.decoder import decoder_of
from tests.support.oracles.masked import continued, positions, visibility
from tests.support.runs import decoded, gap, masked_logits, plain, survivors
from tests.support.settings import settings

SETTINGS = settings()
PROMPTS = {"one": (1,), "two-images-and-padding": (1, 0, 2)}


@pytest.fixture(params=sorted(SETTINGS))
def method(request: pytest.FixtureRequest, case: Case) -> Method:
    chosen = SETTINGS[request.param]
    if proportional(chosen) and not family_of(case.model).tower_adapter().takes_bias:
        pytest.skip("this tower's attention takes no bias, which the method needs")
    return chosen


@pytest.fixture(params=sorted(PROMPTS))
def inputs(request: pytest.FixtureRequest, case: Case) -> dict[str, Tensor]:
    return case.prompts.rows(*PROMPTS[request.param])


def acted(entry: Any, row: int) -> bool:
    """Whether anything happened to ``row`` at this entry of a trace."""
    return entry.labels is None or any(entry.labels[row])


def _edits(method: Method) -> bool:
    return isinstance(method, EditsAttention) and bool(method.edits(DEPTH))


def test_identity_at_the_neutral_setting(
    case: Case, method: Method, inputs: dict[str, Tensor]
) -> None:
    expected = plain(case.model, inputs)
    assert method.kind in ("drop", "merge", "edit")
    with prunus.prune(case.model, method.neutral()) as run:
        logits = plain(case.model, inputs)
    assert gap(logits, expected, inputs["attention_mask"]) < 1e-5
    assert not run.report()["pruned"]


def test_prefill_equals_the_masked_full_length_run(
    case: Case, method: Method, inputs: dict[str, Tensor]
) -> None:
    with prunus.prune(case.model, method) as run:
        logits = plain(case.model, inputs)
    assert run.report()["pruned"]
    length = inputs["input_ids"].shape[1]
    spots = case.prompts.spots(inputs["input_ids"])
    visible = visibility(run.trace, spots, inputs["attention_mask"], DEPTH, length)
    expected = masked_logits(case.model, inputs, visible, run.trace)
    alive = survivors(case, inputs, run.trace)
    assert gap(logits, expected, alive) < 1e-4
    dense = plain(case.model, inputs)
    assert gap(logits[:, -1], dense[:, -1]) > 1e-3  # pruning does something: the test can fail


def test_every_decode_step_equals_the_masked_full_length_run(case: Case, method: Method) -> None:
    _, difference = decoded(case, method, case.prompts.rows(2, 1), 32)
    assert difference < 1e-4


def test_beams_score_as_the_oracle_does(case: Case, method: Method) -> None:
    inputs = case.prompts.rows(2, 1)
    steps, beams = 8, 3
    with prunus.prune(case.model, method) as run:
        out = case.model.generate(
            **inputs,
            max_new_tokens=steps,
            min_new_tokens=steps,
            num_beams=beams,
            num_return_sequences=beams,
            length_penalty=0.0,
            output_scores=True,
            return_dict_in_generate=True,
        )
    length = inputs["input_ids"].shape[1]
    assert len(run.trace[0].kept) == 2  # samples, not beams
    for row in range(2):
        single = case.prompts.one(inputs, row)
        for sequence, score in zip(
            out.sequences[row * beams : (row + 1) * beams],
            out.sequences_scores[row * beams : (row + 1) * beams],
            strict=True,
        ):
            full = continued(single, sequence[None])
            trace = [entry.of(row) for entry in run.trace]
            spots = case.prompts.spots(single["input_ids"])
            visible = visibility(trace, spots, full["attention_mask"], DEPTH, length)
            logits = masked_logits(case.model, full, visible, trace)[0, length - 1 : -1]
            chosen = logits.log_softmax(-1).gather(1, sequence[length:, None]).sum()
            assert abs(float(chosen) - float(score)) < 1e-3


def test_rows_of_a_batch_equal_the_rows_alone(case: Case, method: Method) -> None:
    inputs = case.prompts.rows(2, 0, 1)
    # As generate() makes them: without, padding moves positions, which some methods go by.
    where = positions(case.model, inputs)
    with prunus.prune(case.model, method) as run:
        together = plain(case.model, {**inputs, "position_ids": where})
    for row in (0, 2):
        mask = inputs["attention_mask"][row].bool()
        alone = case.prompts.one(inputs, row, trim=True)
        alone["position_ids"] = where[..., row : row + 1, mask]
        with prunus.prune(case.model, method) as single:
            plain(case.model, alone)
        # A method that decides where it acts may have acted elsewhere on other rows.
        trace = [entry.of(row) for entry in run.trace if acted(entry, row)]
        replayed = Fixed.replay(trace)
        with prunus.prune(case.model, replayed):
            logits = plain(case.model, alone)
        alive = survivors(case, alone, single.trace)
        for entry, own in zip(trace, single.trace, strict=True):
            for a, b in zip(entry.kept[0], own.kept[0], strict=True):
                assert torch.equal(a, b)
        assert gap(logits[alive], together[row : row + 1, mask][alive]) < 1e-4


def test_backends_agree_under_the_same_selection(
    case: Case, method: Method, inputs: dict[str, Tensor]
) -> None:
    with prunus.prune(case.model, method) as run:
        expected = plain(case.model, inputs)
    case.model.set_attn_implementation("eager")
    with prunus.prune(case.model, Fixed.replay(run.trace)):
        logits = plain(case.model, inputs)
    assert gap(logits, expected, survivors(case, inputs, run.trace)) < 1e-4
    with prunus.prune(case.model, method) as eager:
        plain(case.model, inputs)
    for ours, theirs in zip(run.trace, eager.trace, strict=True):
        assert [t.tolist() for s in ours.kept for t in s] == [
            t.tolist() for s in theirs.kept for t in s
        ]


def test_cache_layers_hold_what_the_cuts_say(case: Case, method: Method) -> None:
    inputs = case.prompts.rows(2)
    with prunus.prune(case.model, method) as run:
        with torch.no_grad():
            cache = case.model(**inputs, use_cache=True).past_key_values
    spots = case.prompts.spots(inputs["input_ids"])[0]
    length = inputs["input_ids"].shape[1]
    text = set(range(length)).difference(*spots)
    total = 0
    for layer in range(DEPTH):
        visual = [*spots]
        for entry in run.trace:
            cut = -1 if entry.layer is None else entry.layer
            if layer >= cut or entry.trim_cache:
                pairs = zip(spots, entry.kept[0], strict=True)
                visual = [[places[n] for n in kept.tolist()] for places, kept in pairs]
        if any(layer in entry.forgets for entry in run.trace):
            visual = []
        if cache.layers[layer].keys is None:  # it reads those of another
            continue
        # A sliding window holds what the next token sees.
        first = max(0, length + 1 - getattr(cache.layers[layer], "sliding_window", length + 1))
        seen = sum(place >= first for places in visual for place in places)
        total += seen
        assert cache.layers[layer].keys.shape[-2] == sum(n >= first for n in text) + seen
        assert cache.get_seq_length(layer) == length
    assert run.report()["tokens"]["resident"] == pytest.approx(total / DEPTH)


def test_a_text_turn_on_the_cache(case: Case, method: Method) -> None:
    inputs = case.prompts.rows(1, 2)
    turn = torch.tensor([[11, 12, 13, 14, 15], [21, 22, 23, 24, 25]])
    length = inputs["input_ids"].shape[1]
    full = continued(inputs, torch.cat([inputs["input_ids"], turn], dim=1))
    with prunus.prune(case.model, method) as run, torch.no_grad():
        where = positions(case.model, full)
        first = case.model(**inputs, position_ids=where[..., :length], use_cache=True)
        second = case.model(
            input_ids=turn,
            attention_mask=full["attention_mask"],
            position_ids=where[..., length:],
            past_key_values=first.past_key_values,
        ).logits
    spots = case.prompts.spots(inputs["input_ids"])
    visible = visibility(run.trace, spots, full["attention_mask"], DEPTH, length)
    expected = masked_logits(case.model, full, visible, run.trace)[:, length:]
    assert gap(second, expected) < 1e-4


def test_generate_continues_a_conversation(case: Case, method: Method) -> None:
    """generate() slices its input by the cache's length: logical, also where layer 0 is short."""
    inputs = case.prompts.rows(1)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    with prunus.prune(case.model, method) as run:
        first = case.model.generate(**inputs, **options, return_dict_in_generate=True)
        length = first.sequences.shape[1]
        ids = torch.cat([first.sequences, torch.tensor([[31, 32, 33]])], dim=1)
        second = case.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=first.past_key_values,
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )
    full = continued(inputs, second.sequences)
    spots = case.prompts.spots(inputs["input_ids"])
    prompt = inputs["input_ids"].shape[1]
    visible = visibility(run.trace, spots, full["attention_mask"], DEPTH, prompt)
    expected = masked_logits(case.model, full, visible, run.trace)[:, length + 2 : -1]
    assert gap(torch.stack(second.logits, dim=1), expected) < 1e-4


def test_cache_can_be_repeated_and_cropped(case: Case, method: Method) -> None:
    inputs = case.prompts.rows(1, 2)
    token, length = torch.tensor([[41], [42]]), inputs["input_ids"].shape[1]
    full = continued(inputs, torch.cat([inputs["input_ids"], token], dim=1))
    mask, where = full["attention_mask"], positions(case.model, full)
    with prunus.prune(case.model, method) as run, torch.no_grad():
        cache = case.model(**inputs, position_ids=where[..., :-1], use_cache=True).past_key_values
        wide, short = copy.deepcopy(cache), copy.deepcopy(cache)
        expected = case.model(
            input_ids=token,
            attention_mask=mask,
            past_key_values=cache,
            position_ids=where[..., -1:],
        ).logits
        wide.batch_repeat_interleave(2)
        repeated = case.model(
            input_ids=token.repeat_interleave(2, 0),
            attention_mask=mask.repeat_interleave(2, 0),
            past_key_values=wide,
            position_ids=where[..., -1:].repeat_interleave(2, -2),
        ).logits
        assert gap(repeated, expected.repeat_interleave(2, 0)) < 2e-5
        # Take the last two text tokens of the prompt off, and give them again.
        if any(getattr(one, "sliding_window", length) < length for one in short.layers):
            with pytest.raises((ValueError, RuntimeError), match="window"):  # or transformers'
                short.crop(-2)
            return
        short.crop(-2)
        assert short.get_seq_length() == inputs["input_ids"].shape[1] - 2
        again = case.model(
            input_ids=torch.cat([inputs["input_ids"][:, -2:], token], dim=1),
            attention_mask=mask,
            past_key_values=short,
            position_ids=where[..., -3:],
        ).logits
        pruned = [layer for layer in short.layers if isinstance(layer, PrunedLayer)]
        for layer in pruned[:1]:
            with pytest.raises(ValueError, match="pruned part"):
                layer.crop(-(inputs["input_ids"].shape[1] - 1))
        assert pruned or not run.report()["tokens"]["resident"] < run.report()["tokens"]["original"]
    # What is given again stands behind the prompt: it sees what the (trimmed) cache holds.
    spots = case.prompts.spots(inputs["input_ids"])
    prompt = inputs["input_ids"].shape[1] - 2
    visible = visibility(run.trace, spots, full["attention_mask"], DEPTH, prompt)
    assert gap(again, masked_logits(case.model, full, visible, run.trace)[:, -3:]) < 1e-4


def test_text_only_prompts_pass_untouched(case: Case, method: Method) -> None:
    inputs = case.prompts.rows(0, 0)
    expected = plain(case.model, inputs)
    with prunus.prune(case.model, method) as run:
        with pytest.warns(UserWarning, match="nothing was pruned"):
            logits = plain(case.model, inputs)
    assert torch.equal(logits, expected)
    assert run.trace == [] and not run.report()["pruned"]


def test_text_only_rows_beside_images_are_unchanged(case: Case, method: Method) -> None:
    inputs = case.prompts.rows(2, 0)
    expected = plain(case.model, inputs)[1]
    with prunus.prune(case.model, method):
        logits = plain(case.model, inputs)[1]
    assert gap(logits, expected, inputs["attention_mask"][1]) < 1e-5


def test_the_count_is_exactly_the_budget(case: Case, method: Method) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
    spots = case.prompts.spots(inputs["input_ids"])
    if nominal(method, 100, DEPTH) is not None:  # others find their own count
        budget = Budget([method], DEPTH)
        steps = [
            (part, stage)
            for part in method.parts(DEPTH)
            for stage in range(max(1, len(part.cuts(DEPTH))))
        ]
        for (part, stage), entry in zip(steps, run.trace, strict=True):
            for sample, images, grids in zip(entry.kept, spots, entry.grid, strict=True):
                for kept, places, grid in zip(sample, images, grids, strict=True):
                    # In the tower a budget is for each frame, behind it for a whole video.
                    frames = 1 if part.unit == "image" else grid.pieces
                    expected = budget.counts(part, grid.pieces, len(places))
                    assert expected is not None
                    assert len(kept) == frames * expected[stage]
    for entry in run.trace:
        for sample in entry.kept:
            for image in sample:
                assert torch.equal(image, image.unique(sorted=True))


def test_gradients_flow_through_kept_tokens_only(case: Case, method: Method) -> None:
    inputs = case.prompts.rows(1)
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100
    model = case.model.train()
    with prunus.prune(model, method) as run:
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        assert all(
            parameter.grad is not None and torch.isfinite(parameter.grad).all()
            for parameter in decoder_of(model).layers.parameters()
        )
        # The loss is the masked oracle's loss.
        length = labels.shape[1]
        spots = case.prompts.spots(inputs["input_ids"])
    model.eval()
    visible = visibility(run.trace, spots, inputs["attention_mask"], DEPTH, length, length - 4)
    logits = masked_logits(model, inputs, visible, run.trace)
    expected = torch.nn.functional.cross_entropy(logits[0, -4:-1], labels[0, -3:])
    assert abs(float(loss.detach()) - float(expected)) < 1e-4


def test_gradient_checkpointing_gives_the_same_gradients(case: Case, method: Method) -> None:
    """Or, where transformers replays the hooks of a layer (before 5.23), it is refused."""
    inputs = case.prompts.rows(1, 1)
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100
    gradients = []
    for checkpointing in (False, True):
        model = case.model.train()
        model.zero_grad()
        if checkpointing:
            model.gradient_checkpointing_enable()
        with prunus.prune(model, method) as run:
            if checkpointing and _edits(run.methods[0]):
                with pytest.raises(ValueError, match="while attention is edited"):
                    model(**inputs, labels=labels, use_cache=False)
                return
            if checkpointing and "__call__" in GradientCheckpointingLayer.__dict__:
                with pytest.raises(ValueError, match="needs transformers 5.23|vision tower"):
                    model(**inputs, labels=labels, use_cache=False)
                return
            if checkpointing and in_tower(method):
                with pytest.raises(ValueError, match="checkpointing of the vision tower"):
                    model(**inputs, labels=labels, use_cache=False)
                for tower in family_of(model).towers.values():
                    tower.eval()  # as a frozen tower is: nothing is recomputed
            model(**inputs, labels=labels, use_cache=False).loss.backward()
        weight = next(family_of(model).projector.parameters())
        gradients.append(weight.grad.clone())
    assert gap(*gradients) < 1e-6 * float(gradients[0].abs().max()) + 1e-9
