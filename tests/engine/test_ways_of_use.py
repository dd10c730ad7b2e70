"""What works on the model works on the pruned model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import prunus
from prunus import CLSE, EvoPrune, Fixed, Random, VisiPruner
from tests.support.llava import DEPTH
from tests.support.models import MODELS, Case, prompts_for
from tests.support.oracles.masked import visibility
from tests.support.runs import gap, masked_logits, plain, survivors

GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}


def test_right_padding_in_forward(case: Case) -> None:
    left = case.prompts.rows(2, 1)
    pads = (left["attention_mask"] == 0).sum(1).tolist()
    right = dict(left)
    for name in {"input_ids", "attention_mask", "mm_token_type_ids"} & set(left):
        rows = zip(left[name], pads, strict=True)
        right[name] = torch.stack([row.roll(-n) for row, n in rows])
    edits = VisiPruner(layer_threshold=2, relative=0.1, first_layer="half", shallow_layers=1)
    plain_ones = CLSE(keep=5, variant="hybrid"), Random(keep=5, layer=None), EvoPrune(keep=0.5)
    for method in (*plain_ones, edits, dataclasses.replace(edits, renormalise=True)):
        with prunus.prune(case.model, method) as run:
            expected = plain(case.model, left)
        with prunus.prune(case.model, method) as other:
            found = plain(case.model, right)
        rolled = torch.stack([row.roll(n, 0) for row, n in zip(found, pads, strict=True)])
        assert gap(rolled, expected, survivors(case, left, run.trace)) < 1e-4
        assert [t.tolist() for s in run.trace[0].kept for t in s] == [
            t.tolist() for s in other.trace[0].kept for t in s
        ]


def test_sampling_is_reproducible(case: Case) -> None:
    inputs = case.prompts.rows(1, 2)
    with prunus.prune(case.model, CLSE(keep=5, variant="released")):
        torch.manual_seed(5)
        first = case.model.generate(**inputs, max_new_tokens=6, do_sample=True)
        torch.manual_seed(5)
        assert torch.equal(first, case.model.generate(**inputs, max_new_tokens=6, do_sample=True))
        several = case.model.generate(
            **inputs, max_new_tokens=4, do_sample=True, num_return_sequences=3
        )
    assert several.shape[0] == 6


@pytest.mark.parametrize(
    "method",
    [
        CLSE(keep=5, variant="released"),
        Random(keep=4, layer=None),
        EvoPrune(keep=0.5),
        VisiPruner(layer_threshold=2, relative=0.1, shallow_layers=1, exit_count=9),
    ],
)
def test_bfloat16_stays_within_the_spread_of_the_backends(case: Case, method: Any) -> None:
    inputs = case.prompts.rows(2, 1)
    exact = plain(case.model, inputs)
    model = case.model.to(torch.bfloat16)
    inputs |= {name: pixels.to(torch.bfloat16) for name, pixels in inputs.items() if "pix" in name}
    mask = inputs["attention_mask"]
    sdpa = plain(model, inputs).float()
    spread = gap(sdpa, exact, mask)
    with prunus.prune(model, method.neutral()):
        assert gap(plain(model, inputs).float(), sdpa, mask) <= spread
    with prunus.prune(model, method) as run:
        found = plain(model, inputs).float()
    spots = case.prompts.spots(inputs["input_ids"])
    visible = visibility(run.trace, spots, mask, DEPTH, mask.shape[1])
    expected = masked_logits(model, inputs, visible, run.trace).float()
    assert gap(found, expected, survivors(case, inputs, run.trace)) <= 2 * spread


def test_peft_models(case: Case) -> None:
    inputs = case.prompts.rows(1, 1)
    labels = inputs["input_ids"].clone()
    labels[:, :-2] = -100
    config = LoraConfig(r=2, target_modules=["q_proj", "k_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(case.model, config)
    method = CLSE(keep=5, variant="hybrid")
    with prunus.prune(model, method) as run:
        wrapped = model(**inputs, labels=labels)
        scores = run.trace[0].scores
        model.generate(**inputs, **GREEDY)
    assert run.prompts == 2
    with prunus.prune(model.get_base_model(), method) as inner:
        direct = model.get_base_model()(**inputs, labels=labels)
    assert torch.equal(wrapped.logits, direct.logits)
    assert torch.equal(scores[0][0], inner.trace[0].scores[0][0])
    wrapped.loss.backward()
    named = model.named_parameters()
    grads = [p.grad for name, p in named if "lora_B" in name and "layers.4" in name]
    assert grads and all(grad is not None and grad.abs().max() > 0 for grad in grads)


@pytest.mark.parametrize(
    "method",
    [
        CLSE(keep=5, variant="released"),
        VisiPruner(layer_threshold=2, relative=0.1, shallow_layers=2),
    ],
)
def test_device_map_with_layers_on_disk(case: Case, method: Any, tmp_path: Path) -> None:
    from accelerate import dispatch_model

    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, method):
        expected = plain(case.model, inputs)
        tokens = case.model.generate(**inputs, **GREEDY)
    places: dict[str, Any] = {"": "cpu"}
    for layer in (1, 3):
        places[f"model.language_model.layers.{layer}"] = "disk"
    model = dispatch_model(case.model, places, main_device="cpu", offload_dir=str(tmp_path))
    with prunus.prune(model, method):
        assert gap(plain(model, inputs), expected, inputs["attention_mask"]) < 1e-5
        assert torch.equal(model.generate(**inputs, **GREEDY), tokens)


def test_hidden_states_have_full_length(case: Case) -> None:
    inputs = case.prompts.rows(1, 2)
    method = CLSE(keep=5, variant="released")
    with prunus.prune(case.model, method) as run, torch.no_grad():
        out = case.model(**inputs, output_hidden_states=True)
    spots = case.prompts.spots(inputs["input_ids"])
    visible = visibility(
        run.trace, spots, inputs["attention_mask"], DEPTH, inputs["input_ids"].shape[1]
    )
    with torch.no_grad():
        expected = []
        hooks = [
            layer.register_forward_hook(lambda m, a, o: expected.append(o))
            for layer in case.model.model.language_model.layers
        ]
        masked_logits(case.model, inputs, visible, run.trace)
        for hook in hooks:
            hook.remove()
    alive = survivors(case, inputs, run.trace)
    assert len(out.hidden_states) == DEPTH + 1
    for states, wanted in zip(out.hidden_states[1:-1], expected, strict=False):
        assert states.shape == wanted.shape
        assert gap(states, wanted, alive) < 1e-4


def test_rows_of_removed_positions_repeat_the_survivor_before_them(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, Fixed([2, 9])):
        logits = plain(llava.model, inputs)[0]
    places = llava.prompts.spots(inputs["input_ids"])[0][0]
    assert torch.equal(logits[places[5]], logits[places[2]])
    assert torch.equal(logits[places[15]], logits[places[9]])
    assert torch.equal(logits[places[0]], logits[places[0] - 1])


def test_compact_positions_equal_the_shortened_prompt(llava: Case) -> None:
    """Closing the gaps is the same as a model that never had the other tokens."""
    inputs = llava.prompts.rows(2, 1)
    kept = [[[1, 5, 6], [0, 15]], [[3, 4, 9]]]
    with prunus.prune(llava.model, Fixed(kept, layer=None), positions="compact"):
        out = llava.model.generate(
            **inputs, **GREEDY, output_logits=True, return_dict_in_generate=True
        )
    model = llava.model.model
    features = model.get_image_features(inputs["pixel_values"]).pooler_output
    number = 0
    for row, images in enumerate(llava.prompts.spots(inputs["input_ids"])):
        embeds = model.get_input_embeddings()(inputs["input_ids"][row])
        alive = inputs["attention_mask"][row].bool().clone()
        for places, indices in zip(images, kept[row], strict=True):
            embeds = embeds.clone()
            embeds[places] = features[number]
            alive[[p for n, p in enumerate(places) if n not in indices]] = False
            number += 1
        short = llava.model.generate(
            inputs_embeds=embeds[alive][None],
            **GREEDY,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for ours, theirs in zip(out.logits, short.logits, strict=False):
            assert gap(ours[row], theirs[0]) < 1e-4


def test_composition_of_two_methods(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    both = [CLSE(keep=10), Random(keep=4, layer=3)]
    with prunus.prune(case.model, both) as run:
        found = plain(case.model, inputs)
    assert [(entry.method, entry.layer) for entry in run.trace] == [("clse", 1), ("random", 3)]
    spots = case.prompts.spots(inputs["input_ids"])
    mask = inputs["attention_mask"]
    visible = visibility(run.trace, spots, mask, DEPTH, mask.shape[1])
    alive = survivors(case, inputs, run.trace)
    assert gap(found, masked_logits(case.model, inputs, visible, run.trace), alive) < 1e-4
    assert run.report()["method"] == "clse + random"


def test_inputs_embeds_instead_of_ids(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, CLSE(keep=5)) as run, torch.no_grad():
        expected = llava.model(**inputs).logits
        embeds = llava.model.get_input_embeddings()(inputs["input_ids"])
        found = llava.model(inputs_embeds=embeds, pixel_values=inputs["pixel_values"]).logits
    assert gap(found, expected) < 1e-5 and run.prompts == 2


def test_features_computed_outside_the_run(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with torch.no_grad():
        features = llava.model.model.get_image_features(inputs["pixel_values"])
        with prunus.prune(llava.model, CLSE(keep=5)) as run:
            expected = llava.model(**inputs).logits
        with prunus.prune(llava.model, CLSE(keep=5)) as run:
            pixels = inputs.pop("pixel_values")
            found = llava.model(**inputs, mm_encoder_outputs={"image": features}).logits
    assert gap(found, expected) < 1e-6 and pixels.shape[0] == 1
    assert run.report()["tokens"]["kept"] == 5


def test_report_counts_what_ran(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    lengths: list[int] = []

    def note(module: Any, args: Any) -> None:
        lengths.append(args[0].shape[1])

    with prunus.prune(case.model, CLSE(keep=5, layers=(2,))) as run:
        layers = case.model.model.language_model.layers
        hooks = [layer.register_forward_pre_hook(note) for layer in layers]
        plain(case.model, inputs)
        for hook in hooks:
            hook.remove()
    tokens = run.report()["tokens"]
    visual = [sum(map(len, images)) for images in case.prompts.spots(inputs["input_ids"])]
    mean = sum(visual) / 2
    assert tokens["original"] == mean
    assert tokens["per_layer"] == [mean] * 2 + [7.5] * (DEPTH - 2)
    assert tokens["average"] == pytest.approx((2 * mean + 3 * 7.5) / DEPTH)
    longest = inputs["attention_mask"].sum(1).max()
    assert lengths == [longest] * 2 + [longest - visual[0] + 10] * 3
    assert "visual tokens" in str(run.report())


def test_report_before_anything_ran(llava: Case) -> None:
    with prunus.prune(llava.model, "clse") as run:
        assert run.trace == []
        with pytest.raises(RuntimeError, match="nothing has run yet"):
            run.report()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_warm_and_cold_models_agree(name: str) -> None:
    inputs = prompts_for(name).rows(1)
    cold, warm = MODELS[name](), MODELS[name]()
    plain(warm, inputs)
    results = []
    for model in (cold, warm):
        with prunus.prune(model, CLSE(keep=5)):
            results.append(plain(model, inputs))
    assert torch.equal(*results)
