"""Copies made inside the block are models of their own; whatever interrupts coming and going,
nothing of ours stays behind."""

from __future__ import annotations

import copy
import gc
import io
import linecache
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Uniform, VisiPruner
from prunus.engine.hooks import changing
from tests.support.footprint import ours
from tests.support.llava import llava_clip
from tests.support.models import Case
from tests.support.runs import gap, plain

METHODS = [
    Uniform(keep=5),
    CLSE(keep=5, variant="hybrid"),
    EvoPrune(keep=0.5),
    VisiPruner(layer_threshold=2, relative=0.1, shallow_layers=1),
]
GREEDY: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("make", [copy.deepcopy, pickled, saved])
@pytest.mark.parametrize("method", METHODS)
def test_a_copy_is_a_clean_model(llava: Case, method: Any, make: Callable[[Any], Any]) -> None:
    inputs = llava.prompts.rows(1, 2)
    warm = llava_clip()
    dense = plain(warm, inputs)
    tokens = warm.generate(**inputs, **GREEDY)
    with prunus.prune(warm, method):
        expected = plain(warm, inputs)
    with prunus.prune(llava.model, method) as run:
        if make is copy.deepcopy:  # a model of transformers that has run cannot be pickled
            plain(llava.model, inputs)
        twin = make(llava.model)
        assert torch.equal(plain(twin, inputs), dense)
        assert torch.equal(twin.generate(**inputs, **GREEDY), tokens)
        assert run.prompts == (make is copy.deepcopy)  # the copy is nobody's
        attention = twin.model.language_model.layers[1].self_attn
        assert attention.config is twin.config.get_text_config()
        with torch.no_grad():
            twin.lm_head.weight.zero_()  # weights of its own
        assert twin.generate(**inputs, **GREEDY)[0, -4:].tolist() == [0] * 4
        assert torch.equal(plain(llava.model, inputs), expected)
        with prunus.prune(twin, Uniform(keep=3)) as own:  # and it can be pruned by itself
            plain(twin, inputs)
        assert own.report()["tokens"]["kept"] == 4.5
    assert not [mark for mark in ours(twin) if "config" in mark]
    assert ours(llava.model) == []
    assert torch.equal(plain(llava.model, inputs), dense)


def test_hooks_of_a_copy_take_themselves_out(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, Uniform(keep=5)):
        twin = copy.deepcopy(llava.model)
    plain(twin, inputs)
    assert not [mark for mark in ours(twin) if "hook" in mark]


def test_a_number_of_an_unpickled_hook_is_not_given_away_again(llava: Case) -> None:
    from torch.utils.hooks import RemovableHandle

    with prunus.prune(llava.model, Uniform(keep=5)):
        blob = pickle.dumps(llava.model)
        number = next(iter(llava.model.model._forward_pre_hooks))
    before, RemovableHandle.next_id = RemovableHandle.next_id, number  # as in a new process
    try:
        twin = pickle.loads(blob)
        seen: list[int] = []
        for module in (twin.model, *twin.modules()):
            module.register_forward_pre_hook(lambda m, args: seen.append(len(args)))
        plain(twin, llava.prompts.rows(1))  # a hook that was taken for one of ours gets keywords
        assert seen
    finally:
        RemovableHandle.next_id = max(before, RemovableHandle.next_id)


def released(frame: Any) -> bool:
    """A ``with changing`` is about to give its lock back: its line comes again for a trace, but no
    signal is handled between the end of the body and that."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return line.strip() == "with changing:" and changing._is_owned()


@pytest.mark.parametrize("method", METHODS[1:3])
def test_ctrl_c_at_any_line_of_attach_and_detach(llava: Case, method: Any) -> None:
    """Interrupted at lines that these run in prunus, all over them: afterwards nothing is left
    behind, or a second detach takes it."""
    inputs = llava.prompts.rows(1)
    dense = plain(llava.model, inputs)
    lines = 0
    for step in range(0, 1_000_000, 13):
        run = prunus.prune(llava.model, method)
        count = 0

        def trace(frame: Any, event: str, argument: Any, step: int = step) -> Any:
            nonlocal count
            if "prunus" not in frame.f_code.co_filename or "tests" in frame.f_code.co_filename:
                return None
            if event == "line" and not released(frame):
                count += 1
                if count == step + 1:
                    raise KeyboardInterrupt
            return trace

        interrupted = False
        sys.settrace(trace)
        try:
            with run:
                pass
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(None)
        assert not changing._is_owned(), step  # or other threads would wait for ever
        if ours(llava.model):  # only at the very first line of detach, before it could begin
            run.detach()
        assert ours(llava.model) == [], step
        if not interrupted:
            lines = step
            break
        if step % 130 == 0:
            assert torch.equal(plain(llava.model, inputs), dense)
    assert lines > 100
    with prunus.prune(llava.model, method):  # nothing thinks that it is still being pruned
        pass


@pytest.mark.parametrize("hook", ["register", "remove"])
def test_ctrl_c_in_the_middle_needs_no_second_detach(
    llava: Case, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunus.engine import engine, layers

    module, name = {"register": (layers, "lend"), "remove": (engine, "sweep")}[hook]
    plain_one, count = getattr(module, name), 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == (3 if hook == "register" else 1):
            raise KeyboardInterrupt
        return plain_one(*args, **kwargs)

    monkeypatch.setattr(module, name, interrupted)
    run = prunus.prune(llava.model, CLSE(keep=5, variant="hybrid"))  # held: it cannot just let go
    with pytest.raises(KeyboardInterrupt):
        with run:
            pass
    assert ours(llava.model) == []


def test_a_run_that_nobody_holds_lets_go(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    dense = plain(llava.model, inputs)
    run = prunus.prune(llava.model, CLSE(keep=5, variant="hybrid")).attach()
    assert gap(plain(llava.model, inputs), dense) > 1e-3
    gone = weakref.ref(run)
    del run
    gc.collect()
    assert gone() is None and ours(llava.model) == []
    assert torch.equal(plain(llava.model, inputs), dense)


def test_a_model_is_let_go_of(llava: Case) -> None:
    """Neither places of hooks nor proofs keep a model alive."""
    model = copy.deepcopy(llava.model)
    with prunus.prune(model, CLSE(keep=5, variant="hybrid")) as run:
        plain(model, llava.prompts.rows(1))
    gone = weakref.ref(model.model.language_model.layers[0])
    del model, run
    gc.collect()
    assert gone() is None


def test_saving_a_pruned_model_saves_the_plain_one(llava: Case, tmp_path: Any) -> None:
    inputs = llava.prompts.rows(1)
    dense = plain(llava.model, inputs)
    with prunus.prune(llava.model, CLSE(keep=5, variant="hybrid")):
        llava.model.save_pretrained(tmp_path)
    twin = type(llava.model).from_pretrained(tmp_path).eval()
    assert gap(plain(twin, inputs), dense) < 1e-6


def test_switching_attention_inside_the_block(llava: Case) -> None:
    inputs = llava.prompts.rows(2, 1)
    method = CLSE(keep=5, variant="hybrid")
    with prunus.prune(llava.model, method) as run:
        first = plain(llava.model, inputs)
        llava.model.set_attn_implementation("eager")
        assert llava.model.model.language_model.layers[1].self_attn.config is not None
        assert gap(plain(llava.model, inputs), first, inputs["attention_mask"]) < 1e-4
        llava.model.config.get_text_config()._attn_implementation = "flex_attention"
        with pytest.raises(prunus.PrunusError, match="flex_attention"):
            plain(llava.model, inputs)
    assert run.prompts == 2
    llava.model.config.get_text_config()._attn_implementation = "eager"
    assert ours(llava.model) == []
