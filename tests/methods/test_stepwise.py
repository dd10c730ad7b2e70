"""Stepwise and its one-shot control in a running model, against the literal selector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

import prunus
from prunus import CLSE, Fixed, OneShot, Stepwise
from prunus.families import family_of
from prunus.method.derived import derived
from prunus.selector.cost import selector_macs
from prunus.selector.learned import Learned
from prunus.selector.store import Card, save_selector
from tests.support.facts import nominal
from tests.support.footprint import footprint
from tests.support.literal.stepwise import fitted, literal_orders
from tests.support.models import Case
from tests.support.random_selectors import selector_for
from tests.support.runs import gap, plain


def kept_of(run: prunus.Run) -> list[list[list[int]]]:
    return [[image.tolist() for image in sample] for sample in run.trace[0].kept]


METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adaptive": (Stepwise(), {}),
    "adaptive, hardly": (Stepwise(bias=-1.5), {"pointer": "cross", "seed": 1}),
    "fixed": (Stepwise(keep=5), {}),
    "share": (Stepwise(keep=0.3), {"seed": 2, "clip": 2.0}),
    "one-shot": (OneShot(keep=5), {}),
    "stepwise, no question": (Stepwise(keep=5, question=False), {}),
    "one-shot, no question": (OneShot(keep=5, question=False), {}),
}


@pytest.mark.parametrize("name", METHODS)
def test_keeps_what_the_literal_selector_picks(case: Case, name: str) -> None:
    method = fitted(case, METHODS[name][0], **METHODS[name][1])
    inputs = case.prompts.rows(2, 0, 1)
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
    orders = literal_orders(case, inputs, method)
    assert kept_of(run) == [[sorted(image) for image in row] for row in orders]
    assert (run.trace[0].place, run.trace[0].method) == ("features", method.name)
    if name.startswith("adaptive"):
        assert len({len(image) for row in orders for image in row}) > 1


def test_the_question_matters(case: Case) -> None:
    method, inputs = fitted(case, Stepwise(keep=5)), case.prompts.rows(1)
    found = []
    for word in (None, 33, 34):
        if word:
            inputs["input_ids"][0, -4:] = word
        with prunus.prune(case.model, method) as run:
            plain(case.model, inputs)
        found.append((kept_of(run), run.trace[0].scores[0][0]))  # type: ignore[index]
    assert not torch.allclose(found[1][1], found[2][1])


@pytest.mark.parametrize("method", [Stepwise(bias=-1.0), Stepwise(keep=5), OneShot(keep=5)])
def test_without_question_only_the_image_matters(case: Case, method: Any) -> None:
    assert not derived(replace(method, question=False))["question"] and derived(method)["question"]
    free = fitted(case, replace(method, question=False))
    inputs, found = case.prompts.rows(1), []
    for word in (None, 33, 34):
        if word:
            inputs["input_ids"][0, -4:] = word
        with prunus.prune(case.model, free) as run:
            plain(case.model, inputs)
        found.append((kept_of(run), torch.cat(run.trace[0].scores[0])))  # type: ignore[index]
    assert found[0][0] == found[1][0] == found[2][0]
    assert torch.equal(found[0][1], found[1][1]) and torch.equal(found[0][1], found[2][1])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"keep": 5, "mode": "adaptive"}, ValueError, "keep=5: in adaptive mode"),
        ({"mode": "fixed"}, ValueError, "mode='fixed' needs keep"),
        ({"mode": "mean"}, ValueError, "mode='mean' needs keep"),
        ({"mode": "some", "keep": 5}, ValueError, "mode='some': choose adaptive, fixed or mean"),
        ({"keep": 5, "bias": 1.0}, ValueError, "bias=1.0: it is for adaptive mode"),
        ({"keep": 5, "mode": "mean", "bias": 1.0}, ValueError, "bias=1.0"),
        ({"bias": float("nan")}, ValueError, "bias=nan"),
        ({"bias": float("inf")}, ValueError, "bias=inf"),
        ({"order": "random"}, ValueError, "order='random': choose original or picked"),
        ({"keep": 0}, ValueError, "keep=0"),
        ({"keep": 1.5}, ValueError, "keep=1.5"),
        ({"keep": True}, TypeError, "keep=True"),
    ],
    ids=str,
)
def test_refused_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Stepwise(**arguments)


def test_modes_follow_keep() -> None:
    assert Stepwise().mode == "adaptive" and nominal(Stepwise(), 100) is None
    assert Stepwise(keep=7).mode == "fixed" and nominal(Stepwise(keep=7), 100) == 7
    assert nominal(Stepwise(keep=0.25, mode="mean"), 100) == 25
    assert nominal(OneShot(), 90) == 10
    with pytest.raises(ValueError, match="keep=0"):
        OneShot(keep=0)


def test_without_a_selector(llava: Case, tmp_path: Path) -> None:
    marks = footprint(llava.model)
    for name in ("stepwise", "one-shot"):
        with pytest.raises(ValueError, match=f"no selector '{name}' for this model ships"):
            prunus.prune(llava.model, name)
        with pytest.raises(ValueError, match="no selector in .*nowhere"):
            prunus.prune(llava.model, name, selector=tmp_path / "nowhere")
    assert footprint(llava.model) == marks


def test_a_selector_of_the_other_kind(llava: Case, tmp_path: Path) -> None:
    save_selector(tmp_path, *selector_for(family_of(llava.model), kind="one-shot"))
    with pytest.raises(ValueError, match="needs a stepwise selector.*method 'one-shot'"):
        prunus.prune(llava.model, "stepwise", selector=tmp_path)
    with prunus.prune(llava.model, "one-shot", selector=str(tmp_path), keep=3) as run:
        plain(llava.model, llava.prompts.rows(1))
    assert run.report()["tokens"]["kept"] == 3


def test_a_mean_is_kept_by_a_calibrated_bias(llava: Case) -> None:
    selector, card = selector_for(family_of(llava.model))
    inputs = llava.prompts.rows(2, 1)
    counts = []
    for bias in (-3.0, 0.5, 30.0):
        calibrated = Card(card.model, card.fingerprint, None, biases={"0.25": bias})
        found = []
        for method in (
            Stepwise(bias=bias),
            Stepwise(keep=0.25, mode="mean"),
            Stepwise(keep=4, mode="mean"),  # of 16
        ):
            with prunus.prune(llava.model, method.with_selector(selector, calibrated)) as run:
                plain(llava.model, inputs)
            found.append(kept_of(run))
            nominal = None if method.keep is None else 6  # of one image and a half on average
            assert run.report()["tokens"]["nominal"] == nominal
        assert found[0] == found[1] == found[2]
        counts.append(sum(len(image) for row in found[0] for image in row))
    assert counts[0] > counts[1] > counts[2] == 3 * 2  # min_steps
    other = Stepwise(keep=0.3, mode="mean").with_selector(selector, calibrated)
    with prunus.prune(llava.model, other):
        with pytest.raises(ValueError, match="no STOP bias was calibrated for a mean of 0.3 "):
            plain(llava.model, inputs)


def test_a_sure_stop_keeps_nothing_and_the_answer_is_that_of_the_text(llava: Case) -> None:
    method = fitted(llava, Stepwise(bias=100.0), min_steps=0)
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, method) as run:
        found = plain(llava.model, inputs)
    with prunus.prune(llava.model, Fixed([[[]]], layer=None)):
        expected = plain(llava.model, inputs)
    assert kept_of(run) == [[[]]] and torch.equal(found, expected)
    assert run.report()["tokens"]["kept"] == 0


@pytest.mark.parametrize("name", ["adaptive", "fixed", "one-shot"])
def test_replay_is_exact(case: Case, name: str) -> None:
    method, inputs = fitted(case, METHODS[name][0]), case.prompts.rows(2, 1)
    with prunus.prune(case.model, method) as run:
        found = plain(case.model, inputs)
    with prunus.prune(case.model, Fixed.replay(run.trace)):
        assert torch.equal(plain(case.model, inputs), found)


class Products(TorchFunctionMode):
    """Counts multiply-accumulates of linear layers of a selector as it runs, and the steps of its
    pointer."""

    def __init__(self, selector: nn.Module) -> None:
        super().__init__()
        self.total, self.steps = 0, 0
        self._names = {id(weight): name for name, weight in selector.named_parameters()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is linear and id(args[1]) in self._names:
            self.total += found.numel() * args[0].shape[-1]
            self.steps += self._names[id(args[1])] == "pointer.blocks.0.own.query.weight"
        return found


def counted(case: Case, method: Learned, inputs: dict[str, Tensor]) -> tuple[float, int]:
    """Multiply-accumulates of every linear layer of the selector, and the steps of the pointer."""
    assert method.loaded is not None
    with prunus.prune(case.model, method) as run, Products(method.loaded[0]) as products:
        plain(case.model, inputs)
    assert run.report()["flops"]["pruned"]["method"] > 0
    return products.total, products.steps


@pytest.mark.parametrize(
    ("method", "config"),
    [
        (Stepwise(keep=5), {}),
        (Stepwise(keep=6), {"pointer": "cross", "encoder_layers": 1, "decoder_layers": 3}),
        (Stepwise(keep=3), {"width": 32, "mlp_ratio": 2}),  # as wide as the features
        (Stepwise(), {"stop_bias": -50.0}),  # to the end: 8 steps, none of them STOP
        (OneShot(keep=5), {}),
    ],
)
def test_the_report_counts_the_selector(llava: Case, method: Any, config: dict[str, Any]) -> None:
    method, inputs = fitted(llava, method, **config), llava.prompts.rows(1)
    total, steps = counted(llava, method, inputs)
    selector = method.loaded[0].config
    words = 6  # behind the image
    length, width, slots = 16 + words, selector.width, 16 + 1
    total += selector.encoder_layers * 2 * length * length * width
    for step in range(1, steps + 1):
        total += selector.decoder_layers * 2 * (step + slots) * width  # itself, and the memory
        total += slots * width if selector.pointer == "separate" else 0
    with prunus.prune(llava.model, method) as run:
        plain(llava.model, inputs)
    report = run.report()
    assert report["flops"]["pruned"]["method"] == 2 * total
    assert report["flops"]["dense"]["method"] == 0
    assert report["tokens"]["nominal"] == nominal(method, 16)
    assert steps == {"stepwise": method.keep or 8, "one-shot": 0}[method.name]


def test_the_step_that_stops_is_counted(llava: Case) -> None:
    inputs, method = llava.prompts.rows(1), fitted(llava, Stepwise(bias=50.0))
    with prunus.prune(llava.model, method) as run:
        plain(llava.model, inputs)
    least = method.loaded[0].config.min_steps
    assert run.report()["tokens"]["kept"] == least < 8
    steps = selector_macs(method.loaded[0].config, 16, 6, least + 1)
    assert run.report()["flops"]["pruned"]["method"] == 2 * steps


def test_a_longer_selection_costs_more(llava: Case) -> None:
    inputs, costs = llava.prompts.rows(1), []
    for bias in (50.0, -50.0):
        with prunus.prune(llava.model, fitted(llava, Stepwise(bias=bias))) as run:
            plain(llava.model, inputs)
        costs.append(run.report()["flops"]["pruned"]["method"])
    assert costs[0] < costs[1]


def test_features_computed_outside_are_refused_where_the_tower_is_read(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    method = fitted(llava, Stepwise(keep=5))
    with torch.no_grad():
        features = llava.model.model.get_image_features(inputs["pixel_values"])
        before = plain(llava.model, inputs)
        with prunus.prune(llava.model, method):
            expected = plain(llava.model, inputs)
            pixels = inputs.pop("pixel_values")
            with pytest.raises(ValueError, match="the tower did not run for these 1 images"):
                llava.model(**inputs, mm_encoder_outputs={"image": features})
            # Computed inside, they are seen.
            own = llava.model.model.get_image_features(pixels)
            found = llava.model(**inputs, mm_encoder_outputs={"image": own}).logits
            assert gap(found, expected) < 1e-6
            with pytest.raises(ValueError, match="the tower did not run"):  # once
                llava.model(**inputs, mm_encoder_outputs={"image": own})
        assert torch.equal(plain(llava.model, {**inputs, "pixel_values": pixels}), before)


def test_features_of_an_abandoned_prompt_are_forgotten(llava: Case) -> None:
    inputs, other = llava.prompts.rows(1), llava.prompts.rows(1, seed=5)
    with prunus.prune(llava.model, fitted(llava, Stepwise(keep=5))) as run, torch.no_grad():
        expected = plain(llava.model, inputs)
        kept = kept_of(run)
        llava.model.model.get_image_features(other["pixel_values"])  # and never used
        assert torch.equal(plain(llava.model, inputs), expected)
        llava.model.model.get_image_features(other["pixel_values"])
        llava.model.generate(**inputs, max_new_tokens=2)
        assert kept_of(run) == kept
        broken = {**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)}
        with pytest.raises(ValueError, match="placeholder|match"):
            plain(llava.model, broken)
        assert torch.equal(plain(llava.model, inputs), expected)


def test_words_must_be_known(case: Case) -> None:
    inputs = case.prompts.rows(1)
    embeds = case.model.get_input_embeddings()(inputs.pop("input_ids"))
    with prunus.prune(case.model, fitted(case, Stepwise(keep=5))):
        with pytest.raises(ValueError, match="call the model with input_ids"):
            case.model(inputs_embeds=embeds, **inputs)


def test_answers_do_not_change_the_selection(case: Case) -> None:
    method, inputs = fitted(case, Stepwise(bias=-1.0)), case.prompts.rows(2)
    scores = []
    for answer in (3, 4, None):
        if answer:
            ids, labels = inputs["input_ids"].clone(), inputs["input_ids"].clone()
            ids[:, -2:] = labels[:, -2:] = answer
            labels[:, :-2] = -100
            given = {**inputs, "input_ids": ids, "labels": labels}
        else:  # the prompt without its answer
            text = ("input_ids", "attention_mask", "mm_token_type_ids")
            given = {n: one[:, :-2] if n in text else one for n, one in inputs.items()}
        with prunus.prune(case.model, method) as run, torch.no_grad():
            case.model(**given)
        scores.append((kept_of(run), torch.cat(run.trace[0].scores[0])))  # type: ignore[index]
    assert scores[0][0] == scores[1][0] == scores[2][0]
    assert torch.equal(scores[0][1], scores[1][1])
    assert torch.allclose(scores[0][1], scores[2][1], atol=1e-5)


def test_beams_choose_once(case: Case) -> None:
    method, inputs = fitted(case, Stepwise(bias=-1.0)), case.prompts.rows(2, 1)
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
        kept = kept_of(run)
        single = run.report()["flops"]["pruned"]["method"]
        case.model.generate(**inputs, max_new_tokens=3, num_beams=2)
        assert kept_of(run) == kept
        assert run.report()["flops"]["pruned"]["method"] == pytest.approx(single)


def test_a_prompt_that_ends_with_its_image(llava: Case) -> None:
    inputs = llava.prompts.rows(1, text=0)
    with prunus.prune(llava.model, fitted(llava, Stepwise(keep=4))) as run:
        assert bool(plain(llava.model, inputs).isfinite().all())
    assert run.report()["tokens"]["kept"] == 4


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (lambda own: [own, CLSE(keep=3)], "clse needs the whole grid .* removes tokens before it"),
    ],
    ids=["before CLSE"],
)
@pytest.mark.parametrize("method", [Stepwise(keep=5), OneShot(keep=5)], ids=lambda one: one.name)
def test_refused_compositions(llava: Case, method: Any, methods: Any, words: str) -> None:
    marks = footprint(llava.model)
    with pytest.raises(ValueError, match=words):
        prunus.prune(llava.model, methods(fitted(llava, method)))
    assert footprint(llava.model) == marks


def test_half_precision_around_it(case: Case) -> None:
    method = fitted(case, Stepwise(keep=5))
    inputs, model = case.prompts.rows(2), case.model.to(torch.bfloat16)
    inputs |= {name: one.to(torch.bfloat16) for name, one in inputs.items() if "pix" in name}
    with prunus.prune(model, method) as run:
        plain(model, inputs)
    assert [len(image) for image in kept_of(run)[0]] == [5, 5]
    assert {weight.dtype for weight in method.loaded[0].parameters()} == {torch.float32}
    assert run.trace[0].scores[0][0].dtype == torch.float32  # type: ignore[index]


def test_nothing_stays_behind(case: Case) -> None:
    inputs = case.prompts.rows(1)
    before, marks = plain(case.model, inputs), footprint(case.model)
    with prunus.prune(case.model, fitted(case, Stepwise())):
        case.model.generate(**inputs, max_new_tokens=2)
    assert footprint(case.model) == marks
    assert torch.equal(plain(case.model, inputs), before)
