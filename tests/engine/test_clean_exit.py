"""After success, failure or interruption nothing of ours is left on the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, Knockout, Random
from tests.support.footprint import footprint
from tests.support.models import Case, case_of


@pytest.fixture(params=["llava-clip", "qwen2.5-vl"])
def warm(request: pytest.FixtureRequest) -> tuple[Case, dict[str, Any], Any, dict[str, Any]]:
    """A case whose model ran once (transformers adds hooks of its own at the first forward)."""
    case = case_of(request.param)
    inputs = case.prompts.rows(1, 2)
    with torch.no_grad():
        before = case.model(**inputs).logits
    return case, inputs, before, footprint(case.model)


def check(warm: Any) -> None:
    case, inputs, before, marks = warm
    assert footprint(case.model) == marks
    with torch.no_grad():
        assert torch.equal(case.model(**inputs).logits, before)


def test_success(warm: Any) -> None:
    case, inputs, _, marks = warm
    with prunus.prune(case.model, CLSE(keep=5, variant="released")):
        assert footprint(case.model) != marks
        case.model.generate(**inputs, max_new_tokens=3)
    check(warm)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_in_the_method(warm: Any, error: type[BaseException]) -> None:
    case, inputs, _, _ = warm

    class Broken(Random):
        def score(self, stage: int, view: Any) -> Any:
            raise error("from the method")

    with pytest.raises(error, match="from the method"):
        with prunus.prune(case.model, Broken(keep=5)):
            case.model(**inputs)
    check(warm)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_in_the_model(warm: Any, error: type[BaseException]) -> None:
    case, inputs, _, _ = warm

    def explode(*_: Any) -> None:
        raise error("from the model")

    handle = case.model.model.language_model.layers[3].register_forward_hook(explode)
    with pytest.raises(error, match="from the model"):
        with prunus.prune(case.model, CLSE(keep=5)):
            case.model(**inputs)
    handle.remove()
    check(warm)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_inside_edited_attention(warm: Any, error: type[BaseException]) -> None:
    case, inputs, before, _ = warm

    def explode(*_: Any) -> None:
        raise error("from the attention")

    layers = case.model.model.language_model.layers
    with prunus.prune(case.model, Knockout(layers=(1, 2), renormalise=True)):
        with torch.no_grad():
            first = case.model(**inputs)
            expected = first.logits
            handle = layers[1].self_attn.v_proj.register_forward_hook(explode)
            with pytest.raises(error, match="from the attention"):
                case.model(**inputs)
            handle.remove()
            # The run goes on: text alone is not edited, the next prompt is.
            text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            text["input_ids"] = torch.full_like(text["input_ids"], 5)
            with pytest.warns(UserWarning, match="no image"):
                case.model(**text)
            assert torch.equal(case.model(**inputs).logits, expected)
    assert not torch.equal(expected, before)
    check(warm)


def test_a_failed_forward_leaves_the_run_usable(warm: Any) -> None:
    case, inputs, _, _ = warm
    shown = case.prompts.rows(1, 1)
    few = {**inputs, **{name: shown[name] for name in shown if name.startswith(("pixel", "image"))}}
    with prunus.prune(case.model, CLSE(keep=5)) as run:
        with torch.no_grad():
            expected = case.model(**inputs).logits
            with pytest.raises(ValueError, match="placeholder|match"):
                case.model(**few)
            assert torch.equal(case.model(**inputs).logits, expected)
    assert run.report()["tokens"]["kept"] == pytest.approx(7.5)  # 5 and 10 per sample
    check(warm)


def test_attach_and_detach(warm: Any) -> None:
    case, inputs, before, _ = warm
    run = prunus.prune(case.model, "random", keep=3)
    run.attach()
    with torch.no_grad():
        assert not torch.equal(case.model(**inputs).logits, before)
    run.detach()
    run.detach()
    check(warm)
    assert len(run.trace) == 1  # stays readable


def test_nesting_is_refused_and_harmless(warm: Any) -> None:
    case, inputs, _, _ = warm
    with prunus.prune(case.model, "random", keep=3) as outer:
        with pytest.raises(RuntimeError, match="already"):
            prunus.prune(case.model, "uniform", keep=3).attach()
        with torch.no_grad():
            case.model(**inputs)
        assert outer.trace[0].method == "random"
    check(warm)


def test_a_pruned_cache_is_not_continued_outside(warm: Any) -> None:
    case, inputs, _, _ = warm
    with prunus.prune(case.model, CLSE(keep=5)), torch.no_grad():
        cache = case.model(**inputs, use_cache=True).past_key_values
    with pytest.raises(RuntimeError, match="inside `with prunus.prune"):
        case.model(input_ids=torch.tensor([[5], [6]]), past_key_values=cache)
    check(warm)


def test_ctrl_c_inside_a_layer_holds_on_to_nothing(llava: Case) -> None:
    """torch does not call hooks behind a layer that was interrupted."""
    inputs = llava.prompts.rows(1)

    def explode(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = llava.model.model.language_model.layers[3].mlp.register_forward_hook(explode)
    with pytest.raises(KeyboardInterrupt):
        with prunus.prune(llava.model, CLSE(keep=5, variant="hybrid")) as run, torch.no_grad():
            llava.model(**inputs)
    handle.remove()
    left = run._engine.latest()
    assert left is not None and left.cache is None and not left.looks._kept
