"""What generate() is really going to do counts, not how it was asked."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from transformers import GenerationConfig

import prunus
from prunus import CLSE, Uniform, VisiPruner
from tests.support.llava import DEPTH, IMAGE
from tests.support.models import Case
from tests.support.oracles.masked import continued, visibility
from tests.support.runs import gap, masked_logits

SEEING = CLSE(keep=5, variant="hybrid")
SHORT: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}


def by_keyword(model: Any, inputs: Any, **options: Any) -> Any:
    return model.generate(**inputs, **SHORT, **options)


def by_config(model: Any, inputs: Any, **options: Any) -> Any:
    return model.generate(**inputs, generation_config=GenerationConfig(**SHORT, **options))


def by_position(model: Any, inputs: Any, **options: Any) -> Any:
    rest = {name: value for name, value in inputs.items() if name != "input_ids"}
    config = GenerationConfig(**SHORT, **options)
    return model.generate(inputs["input_ids"], config, **rest)


def by_model(model: Any, inputs: Any, **options: Any) -> Any:
    for name, value in options.items():
        setattr(model.generation_config, name, value)
    return model.generate(**inputs, **SHORT)


def by_model_beside_another(model: Any, inputs: Any, **options: Any) -> Any:
    for name, value in options.items():
        setattr(model.generation_config, name, value)
    return model.generate(**inputs, generation_config=GenerationConfig(**SHORT))


def by_replaced_model(model: Any, inputs: Any, **options: Any) -> Any:
    model.generation_config = GenerationConfig(**SHORT, **options)  # after prune() was entered
    return model.generate(**inputs)


WAYS = [
    by_keyword,
    by_config,
    by_position,
    by_model,
    by_model_beside_another,
    by_replaced_model,
]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_cache": False}, "use_cache=False"),
        ({"cache_implementation": "static"}, "cache_implementation='static'"),
        ({"prefill_chunk_size": 8}, "prefill_chunk_size"),
        ({"prompt_lookup_num_tokens": 2}, "assisted decoding"),
        ({"assistant_early_exit": 2}, "assistant_early_exit"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_refused_however_it_is_asked(
    llava: Case, way: Any, options: dict[str, Any], words: str
) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, SEEING) as run:
        with pytest.raises(prunus.PrunusError, match=words):
            way(llava.model, inputs, **options)
    assert run.prompts == 0


@pytest.mark.parametrize("way", WAYS)
def test_allowed_however_it_is_asked(llava: Case, way: Any) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, SEEING) as run:
        expected = by_keyword(llava.model, inputs)
        assert torch.equal(way(llava.model, inputs, use_cache=True), expected)
    assert run.prompts == 2


def test_a_keyword_outranks_the_model(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    llava.model.generation_config.use_cache = False
    with prunus.prune(llava.model, SEEING) as run:
        by_keyword(llava.model, inputs, use_cache=True)
    assert run.prompts == 1


def test_guidance_reports_the_prompt_with_the_image(llava: Case) -> None:
    """Two prompts run in one generate(); the second has no image, and is not pruned."""
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, SEEING) as run:
        plain = by_keyword(llava.model, inputs)
        alone = run.report()["tokens"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing to warn of
            guided = by_keyword(llava.model, inputs, guidance_scale=3.0)
        assert run.report()["tokens"] == alone
        assert len(run.trace) == 1 and run.prompts == 3
        # Guidance by hand from the two models' own logits.
        out = by_keyword(
            llava.model,
            inputs,
            guidance_scale=3.0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    assert torch.equal(out.sequences, guided) and not torch.equal(guided, plain)


def test_lookups_that_guess_placeholders(llava: Case) -> None:
    """Right at the prompt the model itself refuses them, and says so in its own words."""
    llava.model.generation_config.suppress_tokens = None
    inputs = llava.prompts.rows(1)
    ids = inputs["input_ids"].clone()
    ids[0, 3] = ids[0, -1]  # the lookup finds it right before the image, and guesses placeholders
    inputs["input_ids"] = ids
    with pytest.raises(ValueError, match="features and image tokens do not match"):
        by_keyword(llava.model, inputs, prompt_lookup_num_tokens=4)
    with prunus.prune(llava.model, Uniform(keep=5)) as run:
        with pytest.raises(ValueError, match="features and image tokens do not match"):
            by_keyword(llava.model, inputs, prompt_lookup_num_tokens=4)
        by_keyword(llava.model, inputs)
    assert run.prompts == 1


@pytest.mark.parametrize("method", [Uniform(keep=5), SEEING, Uniform(keep=5, layer=None)])
def test_placeholders_in_a_later_text_turn_are_text(llava: Case, method: Any) -> None:
    inputs = llava.prompts.rows(1)
    turn = torch.tensor([[11, IMAGE, 13]])
    full = continued(inputs, torch.cat([inputs["input_ids"], turn], dim=1))
    length = inputs["input_ids"].shape[1]
    with prunus.prune(llava.model, method) as run, torch.no_grad():
        run.prompt_ends()
        cache = llava.model(**inputs, use_cache=True).past_key_values
        found = llava.model(
            input_ids=turn, attention_mask=full["attention_mask"], past_key_values=cache
        ).logits
    spots = llava.prompts.spots(inputs["input_ids"])
    visible = visibility(run.trace, spots, full["attention_mask"], DEPTH, length)
    # The oracle's own placeholders are filled; that of the turn keeps its word embedding.
    embeds = llava.model.get_input_embeddings()(full["input_ids"])
    with torch.no_grad():
        features = llava.model.model.get_image_features(inputs["pixel_values"]).pooler_output
    embeds[0, spots[0][0]] = torch.cat(list(features))
    handed = {"inputs_embeds": embeds, "attention_mask": full["attention_mask"]}
    expected = masked_logits(llava.model, handed, visible, run.trace)[:, length:]
    assert gap(found, expected) < 1e-4


def test_placeholders_without_an_image_are_text(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    del inputs["pixel_values"]
    with torch.no_grad():
        expected = llava.model(**inputs).logits
        with prunus.prune(llava.model, SEEING) as run:
            with pytest.warns(UserWarning, match="no image"):
                found = llava.model(**inputs).logits
    assert torch.equal(found, expected) and run.trace == []


def test_a_prefix_on_the_cache(llava: Case) -> None:
    """Prefix tuning fills the cache before the prompt: refused with the reason."""
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = get_peft_model(llava.model, config)
    inputs = llava.prompts.rows(1)
    with prunus.prune(model, Uniform(keep=5)), torch.no_grad():
        with pytest.raises(prunus.PrunusError, match="holds 3 tokens already.*prefix of PEFT"):
            model(**inputs)


@pytest.mark.parametrize(
    "name", ["generate_batch", "init_continuous_batching", "continuous_batching_context_manager"]
)
def test_continuous_batching(llava: Case, name: str) -> None:
    with prunus.prune(llava.model, SEEING):
        with pytest.raises(prunus.PrunusError, match="left-padded batch"):
            getattr(llava.model, name)([[1, 2, 3]])


def test_generate_in_training_mode_with_checkpointing(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    llava.model.train()
    llava.model.gradient_checkpointing_enable()
    with prunus.prune(llava.model, SEEING):
        with pytest.raises(prunus.PrunusError, match=r"call model\.eval"):
            by_keyword(llava.model, inputs)
        llava.model.eval()
        by_keyword(llava.model, inputs)


def test_fewer_layers_than_there_were(llava: Case) -> None:
    """Cut off before: the plan is for what runs. Cut off inside: refused."""
    inputs = llava.prompts.rows(1)
    text = llava.model.config.get_text_config()
    text.num_hidden_layers = 3
    with torch.no_grad():
        with prunus.prune(llava.model, Uniform(keep=1.0)):
            assert gap(llava.model(**inputs).logits, llava.model(**inputs).logits) == 0
        with prunus.prune(llava.model, Uniform(keep=5)) as run:
            cache = llava.model(**inputs, use_cache=True).past_key_values
            lengths = [layer.keys.shape[-2] for layer in cache.layers]
            assert lengths == [26, 15, 15]
            assert run.report()["tokens"]["per_layer"] == [16, 5, 5]
            text.num_hidden_layers = 2
            with pytest.raises(prunus.PrunusError, match="runs 2 decoder layers now"):
                llava.model(**inputs)
        with pytest.raises(prunus.PrunusError, match="layers 0 to 1"):
            prunus.prune(llava.model, Uniform(keep=5, layer=2))


def test_what_is_masked_out_stays_masked_out(llava: Case) -> None:
    """Image tokens of one row, all or some, by the attention mask: nobody ever sees them."""
    inputs = llava.prompts.rows(1, 1)
    spots = llava.prompts.spots(inputs["input_ids"])
    for hidden in (spots[1][0], spots[1][0][3:9]):
        mask = inputs["attention_mask"].clone()
        mask[1, hidden] = 0
        own = {**inputs, "attention_mask": mask}
        for method in (Uniform(keep=5), Uniform(keep=5, layer=None), SEEING, CLSE(keep=5)):
            with prunus.prune(llava.model, method) as run:
                out = llava.model.generate(
                    **own, **SHORT, output_logits=True, return_dict_in_generate=True
                )
            full = continued(own, out.sequences)
            length = mask.shape[1]
            visible = visibility(run.trace, spots, full["attention_mask"], DEPTH, length)
            expected = masked_logits(llava.model, full, visible, run.trace)
            found = torch.stack(out.logits, dim=1)
            assert gap(found, expected[:, length - 1 : -1]) < 1e-4


def test_two_images_of_which_one_is_masked_out_for_edits(llava: Case) -> None:
    inputs = llava.prompts.rows(2)
    spots = llava.prompts.spots(inputs["input_ids"])
    mask = inputs["attention_mask"].clone()
    mask[0, spots[0][0]] = 0
    method = VisiPruner(layer_threshold=2, relative=0.1, shallow_layers=1)
    with prunus.prune(llava.model, method) as run, torch.no_grad():
        run.prompt_ends()
        found = llava.model(**{**inputs, "attention_mask": mask}).logits
    assert torch.isfinite(found).all()
