"""Bad input and unsupported settings: refused early, by name, with the model untouched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, DynamicCache, StaticCache

import prunus
from prunus import CLSE, Fixed, Random, Uniform
from tests.support.footprint import footprint
from tests.support.llava import DEPTH, TOKENS
from tests.support.models import Case


@pytest.mark.parametrize("keep", [0, -3, float("nan"), 0.0, 1.5, -0.1])
def test_keep_out_of_range(llava: Case, keep: float) -> None:
    with pytest.raises(ValueError, match="keep="):
        prunus.prune(llava.model, "clse", keep=keep)


@pytest.mark.parametrize("keep", [True, False, "64", None, 1j])
def test_keep_of_a_wrong_type(llava: Case, keep: Any) -> None:
    with pytest.raises(TypeError, match="keep="):
        prunus.prune(llava.model, "random", keep=keep)


def test_unknown_names(llava: Case) -> None:
    with pytest.raises(ValueError, match="unknown method 'clsee'.*clse"):
        prunus.prune(llava.model, "clsee")
    with pytest.raises(ValueError, match=r"'own.py' is a file: name the class.*own.py:MyMethod"):
        prunus.prune(llava.model, "own.py")
    with pytest.raises(ValueError, match="no parameter budgets: it takes.*keep"):
        prunus.prune(llava.model, "clse", budgets=3)
    with pytest.raises(ValueError, match="budget=3: choose nominal or true"):
        prunus.prune(llava.model, "clse", budget=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no method"):
        prunus.prune(llava.model, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no method given"):
        prunus.prune(llava.model, [])
    with pytest.raises(TypeError, match="beside an instance"):
        prunus.prune(llava.model, CLSE(keep=3), keep=4)


def test_unsupported_family() -> None:
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    with pytest.raises(ValueError, match="unsupported model family 'bert'.*llava"):
        prunus.prune(BertModel(config), "clse")
    with pytest.raises(TypeError, match="transformers model"):
        prunus.prune("llava", "clse")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Random(keep=3, layer=DEPTH), "layers 0 to"),
        (CLSE(layers=(0,)), "cannot look at layer 0"),
        (CLSE(layers=(0,), score_type="attn"), "cannot look at layer -1"),
        (CLSE(layers=(2,), reference=3), "cannot look at layer 3"),
        (CLSE(variant="released", layers=(1, 3, 2)), "increasing"),
        ([Random(keep=9), CLSE(keep=3, layers=(2,))], "needs the whole grid"),
        ([Random(keep=9, layer=None), CLSE(keep=3)], "needs the whole grid"),
    ],
)
def test_impossible_places(llava: Case, method: Any, words: str) -> None:
    marks = footprint(llava.model)
    with pytest.raises(ValueError, match=words):
        prunus.prune(llava.model, method)
    assert footprint(llava.model) == marks


def test_position_policies(llava: Case) -> None:
    with pytest.raises(ValueError, match="compact"):
        prunus.prune(llava.model, CLSE(keep=3), positions="compact")
    with pytest.raises(ValueError, match="choose 'original'"):
        prunus.prune(llava.model, CLSE(keep=3), positions="packed")


@pytest.mark.parametrize(
    "arguments",
    [
        {"variant": "papers"},
        {"score_type": "fft"},
        {"cutoff": -0.1},
        {"cutoff": float("nan")},
        {"temperature": 0.0},
        {"temperature": float("inf")},
        {"layers": (1, 2)},
    ],
)
def test_clse_parameters(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        CLSE(**arguments)


def test_caches(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, CLSE(keep=5)):
        with pytest.raises(ValueError, match="cache_implementation='static'"):
            llava.model.generate(**inputs, cache_implementation="static", max_new_tokens=2)
        static = StaticCache(config=llava.model.config.get_text_config(), max_cache_len=64)
        with pytest.raises(ValueError, match="DynamicCache only, not StaticCache"):
            llava.model(**inputs, past_key_values=static)
        with pytest.raises(ValueError, match="use_cache=False"):
            llava.model.generate(**inputs, use_cache=False, max_new_tokens=2)
        with pytest.raises(ValueError, match="prefill_chunk_size"):
            llava.model.generate(**inputs, prefill_chunk_size=8, max_new_tokens=2)


def test_new_images_on_a_cache(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, CLSE(keep=5)), torch.no_grad():
        cache = llava.model(**inputs, use_cache=True).past_key_values
        with pytest.raises(ValueError, match="new images on a KV cache"):
            llava.model(
                input_ids=inputs["input_ids"],
                pixel_values=inputs["pixel_values"],
                past_key_values=cache,
            )


def test_placeholders_without_their_image(llava: Case) -> None:
    inputs = llava.prompts.rows(2)
    inputs["pixel_values"] = inputs["pixel_values"][:1]
    with prunus.prune(llava.model, CLSE(keep=5)):
        with pytest.raises(ValueError, match="match|placeholder"):
            llava.model(**inputs)


def test_attention_maps_and_tuples(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    llava.model.set_attn_implementation("eager")
    with prunus.prune(llava.model, CLSE(keep=5)):
        with pytest.raises(ValueError, match="output_attentions"):
            llava.model(**inputs, output_attentions=True)
        with pytest.raises(ValueError, match="2-D mask"):
            llava.model(**{**inputs, "attention_mask": torch.ones(1, 1, 27, 27).bool()})


def test_assisted_decoding_is_refused_for_query_dependent_methods(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, CLSE(keep=5, variant="hybrid")):
        with pytest.raises(ValueError, match="assisted"):
            llava.model.generate(**inputs, prompt_lookup_num_tokens=2, max_new_tokens=4)
        with pytest.raises(ValueError, match="logits_to_keep=3"):
            llava.model(**inputs, logits_to_keep=3)


def test_assisted_decoding_gives_the_same_answer_for_others(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, CLSE(keep=5)):
        expected = llava.model.generate(**inputs, max_new_tokens=12, do_sample=False)
        # A prompt without images in its ids for the lookup: candidates are text tokens only.
        found = llava.model.generate(
            **inputs, max_new_tokens=12, do_sample=False, prompt_lookup_num_tokens=2
        )
    assert torch.equal(found, expected)


def test_unknown_attention_backend(llava: Case) -> None:
    llava.model.config.get_text_config()._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="flex_attention.*sdpa"):
        prunus.prune(llava.model, CLSE(keep=5))


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ([], "non-empty"),
        ([3, 2], "ascending"),
        ([1, 1], "ascending"),
        ([-1, 2], "non-negative"),
        ([0.5], "ints"),
        ("12", "list"),
        ([[[True]]], "ints"),
    ],
)
def test_fixed_indices(indices: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Fixed(indices)


def test_fixed_that_does_not_fit_the_prompt(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    for indices, words in (([3, TOKENS], "outside its grid"), ([[[1]], [[1]]], "2 samples")):
        with prunus.prune(llava.model, Fixed(indices)):
            with pytest.raises(ValueError, match=words):
                llava.model(**inputs)
    with prunus.prune(llava.model, [Fixed([1, 2], layer=1), Fixed([2, 3], layer=2)]):
        with pytest.raises(ValueError, match="gone"):
            llava.model(**inputs)


def test_labels_without_a_prompt(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, CLSE(keep=5)):
        with pytest.raises(ValueError, match="no prompt"):
            llava.model(**inputs, labels=inputs["input_ids"])


def test_a_cache_with_another_mask(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, Uniform(keep=5)), torch.no_grad():
        cache = llava.model(**inputs, past_key_values=DynamicCache()).past_key_values
        with pytest.raises(ValueError, match="attention_mask has shape"):
            llava.model(
                input_ids=torch.tensor([[4]]),
                attention_mask=torch.ones(1, 5),
                past_key_values=cache,
            )


def test_a_row_of_padding_alone(llava: Case) -> None:
    """The unmodified model runs it; there is nothing to prune, and no end of a prompt."""
    inputs = llava.prompts.rows(1, 0)
    inputs["input_ids"][1], inputs["attention_mask"][1] = 0, 0
    with (
        prunus.prune(llava.model, prunus.Random(keep=2)),
        torch.no_grad(),
        pytest.raises(prunus.PrunusError, match="row 1 of the batch is padding from end to end"),
    ):
        llava.model(**inputs)
