"""PaliGemma 1 and 2, loaded from disk with their real processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Random, Uniform
from prunus.errors import PrunusError
from prunus.families import family_of
from tests.conftest import Case
from tests.support.families import picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.paligemma import PALIGEMMA, PALIGEMMA2, PATCH, SIDE, WINDOW
from tests.support.runs import decoded, gap, plain

ORDINARY = {"before", "released"}
#: Softcaps of Gemma 2 are left out by SDPA, so that backends do not agree, pruned or not.
EAGER = sorted(set(INVARIANTS) - {"backends_agree_under_the_same_selection"})
#: The end of a prompt that is taken off and given again is no longer seen by what stands before it,
#: pruned or not.
AGAIN = "cache_can_be_repeated_and_cropped"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(PALIGEMMA, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    model, processor = load(PALIGEMMA2, tmp_path_factory.mktemp("second"))
    model.set_attn_implementation("eager")
    return model, processor


@pytest.fixture
def case(loaded: tuple[Any, Any]) -> Case:
    return case_of(PALIGEMMA, loaded, "I")


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m in ORDINARY else pytest.mark.full) for m in METHODS]
)
@pytest.mark.parametrize("name", sorted(set(INVARIANTS) - {AGAIN}))
def test_invariants(name: str, method: str, case: Case) -> None:
    hold(name, case, METHODS[method])


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m == "late" else pytest.mark.full) for m in METHODS]
)
@pytest.mark.parametrize("name", EAGER)
def test_invariants_of_the_second(name: str, method: str, second: tuple[Any, Any]) -> None:
    hold(name, case_of(PALIGEMMA2, second, "I"), METHODS[method])


def test_a_turn_that_is_cropped_and_given_again(case: Case) -> None:
    inputs, turn = case.prompts.rows(1), torch.tensor([[11, 12, 13]])
    with prunus.prune(case.model, METHODS["released"]), torch.no_grad():
        cache = case.model(**inputs, use_cache=True).past_key_values
        first = case.model(input_ids=turn, past_key_values=cache).logits
        cache.crop(-2)
        again = case.model(input_ids=turn[:, 1:], past_key_values=cache).logits
    assert gap(again, first[:, 1:]) < 1e-5


def test_decoding_far_beyond_the_window_of_the_second(second: tuple[Any, Any]) -> None:
    case = case_of(PALIGEMMA2, second, "I")
    run, difference = decoded(case, Random(keep=5, layer=1), case.prompts.rows(2, 1), 4 * WINDOW)
    assert difference < 1e-4 and run.report()["pruned"]


def test_the_prompt_sees_itself_in_both_directions(case: Case) -> None:
    """Or the oracles would not tell: as an answer, causal, logits are others, pruned or not."""
    inputs = case.prompts.rows(1)
    causal = {**inputs, "token_type_ids": torch.ones_like(inputs["token_type_ids"])}
    assert not inputs["token_type_ids"].any()
    for method in (Uniform(keep=1.0), Uniform(keep=9)):
        with prunus.prune(case.model, method):
            assert gap(plain(case.model, inputs), plain(case.model, causal)) > 1e-2


def test_an_answer_in_training_is_causal(loaded: tuple[Any, Any], case: Case) -> None:
    """What the processor makes of a suffix: the choice is the prompt's, whatever is answered."""
    model, processor = loaded
    traces = []
    for suffix in ("red", "a bus"):
        inputs = processor(
            text=f"{PALIGEMMA.image}what is this?",
            images=picture(48, 32),
            suffix=suffix,
            return_tensors="pt",
        )
        assert (inputs["labels"] != -100).sum() == len(suffix) + 1
        with prunus.prune(model, CLSE(keep=6, variant="released")) as run, torch.no_grad():
            assert torch.isfinite(model(**inputs).loss)
        traces.append([entry.kept[0][0].tolist() for entry in run.trace])
    assert traces[0] == traces[1]


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = marked_inputs(PALIGEMMA, processor, (90, 43), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    assert (grid.rows, grid.cols) == (SIDE // PATCH, SIDE // PATCH)
    pixels = inputs["pixel_values"][0, 0]  # of one channel
    cells = pixels.unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH).reshape(grid.size, -1)
    bright = (cells > pixels.min() + 0.3 * (pixels.max() - pixels.min())).any(1)
    assert_mark_in_boxes(boxes_of(grid, (90, 43)), bright.numpy(), square)


@pytest.mark.parametrize("kind", ["first", "second"])
def test_costs(kind: str, loaded: tuple[Any, Any], second: tuple[Any, Any]) -> None:
    model, processor = loaded if kind == "first" else second
    inputs = case_of(PALIGEMMA, (model, processor), "I").prompts.rows(2)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, Uniform(keep=5))
    assert report["uncounted"] == {}


def test_what_the_processor_gives_generates(loaded: tuple[Any, Any]) -> None:
    """With the labels it always makes, all of them -100."""
    model, processor = loaded
    inputs = processor(text=f"{PALIGEMMA.image}what?", images=picture(48, 32), return_tensors="pt")
    with prunus.prune(model, Uniform(keep=5, layer=None)) as run:
        ids = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4)
    assert ids.shape[1] == inputs["input_ids"].shape[1] + 4 and run.report()["tokens"]["kept"] == 5


def test_features_from_outside_and_what_is_refused(loaded: tuple[Any, Any], case: Case) -> None:
    model, _ = loaded
    with pytest.raises(PrunusError, match="vision tower.*paligemma.*last norm"):
        prunus.prune(model, EvoPrune(keep=5)).attach()
    inputs = case.prompts.rows(1)
    with prunus.prune(model, Uniform(keep=5)), torch.no_grad():
        expected = model(**inputs).logits
        features = {"image": model.get_image_features(inputs.pop("pixel_values"))}
        assert gap(model(**inputs, mm_encoder_outputs=features).logits, expected) < 1e-6
