"""Ways to compile a model that is pruned: the same tokens as without, or refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CompileConfig

import prunus
from prunus import CLSE, Uniform
from prunus.engine import hooks
from tests.support.footprint import ours
from tests.support.llava import llava_clip
from tests.support.models import prompts_for
from tests.support.runs import gap, plain

pytestmark = pytest.mark.filterwarnings("ignore")

SHORT: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
METHODS = {"before": Uniform(keep=5, layer=None), "row": CLSE(keep=5, variant="hybrid")}


@pytest.fixture(autouse=True)
def fresh() -> Any:
    logging.getLogger("torch.__trace").setLevel(logging.ERROR)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def forward(model: Any, **options: Any) -> Callable[..., Any]:
    model.forward = torch.compile(model.forward, **options)
    return model  # type: ignore[no-any-return]


def whole(model: Any, **options: Any) -> Callable[..., Any]:
    return torch.compile(model, **options)


def in_place(model: Any, **options: Any) -> Callable[..., Any]:
    model.compile(**options)
    return model  # type: ignore[no-any-return]


def layers(model: Any, **options: Any) -> Callable[..., Any]:
    for layer in model.model.language_model.layers:
        layer.compile(**options)
    return model  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("when", ["before", "inside"])
def test_the_compiled_forward_of_a_model(name: str, when: str) -> None:
    """As transformers' documents do it."""
    model, inputs = llava_clip(3), prompts_for("llava-clip").rows(1)
    with prunus.prune(model, METHODS[name]), torch.no_grad():
        expected = model.generate(**inputs, **SHORT)
    with torch.no_grad():
        dense = model.generate(**inputs, **SHORT)
        if when == "before":
            forward(model, backend="eager")
            assert torch.equal(model.generate(**inputs, **SHORT), dense)
        with prunus.prune(model, METHODS[name]) as run:
            if when == "inside":
                forward(model, backend="eager")
            assert torch.equal(model.generate(**inputs, **SHORT), expected)
        assert run.report()["tokens"]["kept"] == 5
        assert torch.equal(model.generate(**inputs, **SHORT), dense)


def test_what_generate_is_told_to_compile() -> None:
    """It compiles for static caches alone, and says so."""
    model, inputs = llava_clip(3), prompts_for("llava-clip").rows(1)
    told = CompileConfig(backend="eager")
    told._compile_all_devices = True
    with prunus.prune(model, METHODS["row"]) as run, torch.no_grad():
        expected = model.generate(**inputs, **SHORT)
        assert torch.equal(model.generate(**inputs, compile_config=told, **SHORT), expected)
        with pytest.raises(prunus.PrunusError, match="cache_implementation='static'"):
            model.generate(**inputs, compile_config=told, cache_implementation="static", **SHORT)
    assert run.prompts == 2


@pytest.mark.skipif(not hooks._SAYS_WHY, reason="this torch does not give a reason")
@pytest.mark.parametrize("form", [forward, whole, in_place, layers])
@pytest.mark.parametrize("when", ["before", "inside"])
def test_one_graph_of_all_is_refused(form: Callable[..., Any], when: str) -> None:
    model, inputs = llava_clip(3), prompts_for("llava-clip").rows(1)
    dense = plain(model, inputs)
    call = model
    if when == "before":
        call = form(model, backend="eager", fullgraph=form is not layers)
    with prunus.prune(model, METHODS["row"]) as run, torch.no_grad():
        call = form(model, backend="eager", fullgraph=True) if call is model else call
        with pytest.raises(Exception, match=r"compile without fullgraph=True"):
            call(**inputs, use_cache=False)
        assert run.prompts <= 1
    assert ours(model) == []
    torch._dynamo.reset()
    assert gap(plain(llava_clip(3), inputs), dense) == 0


def test_a_fixed_budget_compiles_nothing_anew() -> None:
    """Layers that were compiled for one prompt and its steps run the next ones, of other lengths
    too, with the same graphs."""
    model, prompts = llava_clip(3), prompts_for("llava-clip")
    made = list[int]()

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        made.append(len(inputs))
        return graph.forward  # type: ignore[no-any-return]

    def answer(*images: int) -> Tensor:
        tokens: Tensor = model.generate(**prompts.rows(*images), **SHORT)
        return tokens

    with prunus.prune(model, Uniform(keep=5, layer=1)), torch.no_grad():
        expected = [answer(1), answer(2), answer(1)]
        layers(model, backend=backend, dynamic=True)
        assert torch.equal(answer(1), expected[0]) and torch.equal(answer(2), expected[1])
        count = len(made)
        assert 0 < count <= 12
        assert torch.equal(answer(1), expected[2])
        assert torch.equal(model.generate(**prompts.rows(2), **SHORT), expected[1])
        assert len(made) == count
