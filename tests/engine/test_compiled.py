"""Models that torch.compile has seen before the block, or sees inside it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Uniform, VisiPruner
from tests.support.llava import llava_clip
from tests.support.models import Case, prompts_for
from tests.support.runs import gap, plain

pytestmark = pytest.mark.filterwarnings("ignore")

METHODS = {
    "before": Uniform(keep=5, layer=None),
    "row": CLSE(keep=5, variant="hybrid"),
    "tower": EvoPrune(keep=0.5),
    "decides": VisiPruner(
        stages=("shallow", "middle"), layer_threshold=2, relative=0.1, shallow_layers=1
    ),
}


@pytest.fixture(autouse=True)
def fresh() -> Any:
    logging.getLogger("torch.__trace").setLevel(logging.ERROR)  # pytest would collect megabytes
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def whole(model: Any) -> Callable[..., Any]:
    return torch.compile(model, backend="eager")


def in_place(model: Any) -> Callable[..., Any]:
    model.compile(backend="eager")
    return model  # type: ignore[no-any-return]


def part(model: Any) -> Callable[..., Any]:
    model.model.language_model.compile(backend="eager")
    return model  # type: ignore[no-any-return]


def layers(model: Any) -> Callable[..., Any]:
    for layer in model.model.language_model.layers:
        layer.compile(backend="eager")
    return model  # type: ignore[no-any-return]


def wrapped(model: Any) -> Callable[..., Any]:
    return torch.compile(lambda **inputs: model(**inputs), backend="eager")


def compiled_tower(model: Any) -> Callable[..., Any]:
    model.model.vision_tower.compile(backend="eager")
    return model  # type: ignore[no-any-return]


@pytest.fixture
def small() -> Any:
    """Few layers: compiling takes its time."""
    return llava_clip(4)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((form, "decides") for form in (whole, in_place, part, wrapped)),
        (whole, "before"),
        (whole, "tower"),
        (compiled_tower, "tower"),
        (layers, "row"),
    ],
)
def test_compiled_before(small: Any, form: Any, name: str) -> None:
    """It prunes, twice in a row, and afterwards is what it was."""
    inputs, method = prompts_for("llava-clip").rows(2, 1), METHODS[name]
    with prunus.prune(small, method):
        expected = plain(small, inputs)
    call = form(small)
    with torch.no_grad():
        before = call(**inputs, use_cache=False).logits
        for number in range(2):
            if name == "tower" and number:  # parts of it are compiled apart, and are not noticed
                with (
                    prunus.prune(small, method),
                    pytest.raises(ValueError, match=r"_dynamo\.reset"),
                ):
                    call(**inputs, use_cache=False)
                torch._dynamo.reset()
            with prunus.prune(small, method) as run:
                found = call(**inputs, use_cache=False).logits
            assert run.prompts == 1 and run.report()["pruned"]
            assert gap(found, expected, inputs["attention_mask"]) < 1e-5
        after = call(**inputs, use_cache=False).logits
    assert torch.equal(before, after)


@pytest.mark.parametrize("name", ["decides", "tower"])
def test_compiled_inside(small: Any, name: str) -> None:
    inputs = prompts_for("llava-clip").rows(2, 1)
    options: dict[str, Any] = {"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False}
    with torch.no_grad():
        dense = small(**inputs, use_cache=False).logits
    with prunus.prune(small, METHODS[name]) as run, torch.no_grad():
        expected = plain(small, inputs)
        tokens = small.generate(**inputs, **options)
        small.compile(backend="eager")
        assert gap(plain(small, inputs), expected, inputs["attention_mask"]) < 1e-5
        assert torch.equal(small.generate(**inputs, **options), tokens)
        assert run.prompts == 4
    with torch.no_grad():
        assert torch.equal(small(**inputs, use_cache=False).logits, dense)


def test_a_compiled_wrapper_is_a_model(small: Any) -> None:
    fast = torch.compile(small, backend="eager")
    inputs = prompts_for("llava-clip").rows(1)
    with prunus.prune(small, METHODS["row"]):
        expected = plain(small, inputs)
    with prunus.prune(fast, METHODS["row"]) as run:
        assert gap(plain(fast, inputs), expected) < 1e-5
    assert run.prompts == 1


def test_a_run_in_which_no_prompt_was_seen_says_so(llava: Case) -> None:
    """Whatever the cause: here a cache that was filled before."""
    inputs = llava.prompts.rows(1)
    with torch.no_grad():
        cache = llava.model(**inputs, use_cache=True).past_key_values
        with pytest.warns(UserWarning, match="no prompt was seen"):
            with prunus.prune(llava.model, Uniform(keep=5)):
                llava.model(input_ids=torch.tensor([[7]]), past_key_values=cache)
