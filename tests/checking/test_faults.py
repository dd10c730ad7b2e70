"""The check finds faults: each is put into a run that is right, and has to show in its column."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, EvoPrune, Knockout, Random
from prunus.errors import PrunusError
from prunus.method import Edit, Selection
from prunus.run import Run
from tests.checking.prompts import failed, prompts_of
from tests.support.models import Case

CUT = CLSE(keep=5, layers=(2,))
TRIMMED = CLSE(keep=5, layers=(2,), trim_cache=True)

Hook = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def columns(case: Case, method: Any) -> set[str]:
    """The columns that fail for one method."""
    report = prunus.check(case.model, None, [method], prompts=prompts_of(case))
    assert report.ok == (not failed(report))
    return failed(report)


@pytest.fixture
def sabotage(case: Case, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Hook], None]:
    """Put a pre-hook of a decoder layer behind the engine's own, while the model is pruned."""
    attach, detach, handles = Run.attach, Run.detach, []

    def install(layer: int, hook: Hook) -> None:
        def attached(run: Run) -> Run:
            attach(run)
            module = case.model.model.language_model.layers[layer]
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            return run

        def detached(run: Run) -> None:
            while handles:
                handles.pop().remove()
            detach(run)

        monkeypatch.setattr(Run, "attach", attached)
        monkeypatch.setattr(Run, "detach", detached)

    return install


def states_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    states: Tensor = args[0] if args else kwargs["hidden_states"]
    return states


def with_states(args: tuple[Any, ...], kwargs: dict[str, Any], states: Tensor) -> Any:
    return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})


def shortened(case: Case, states: Tensor) -> bool:
    """Whether this is a prompt behind a cut."""
    return 1 < states.shape[1] < min(len(p["input_ids"][0]) for p in prompts_of(case))


def test_nothing_fails_without_a_fault(case: Case, sabotage: Any) -> None:
    sabotage(3, lambda module, args, kwargs: None)
    for method in (CUT, TRIMMED, EvoPrune(keep=0.5), Knockout(layers=(1, 3))):
        assert columns(case, method) == set()


def test_a_mask_that_forgets_padding(case: Case, sabotage: Any) -> None:
    def fault(module: Any, args: Any, kwargs: Any) -> Any:
        states = states_of(args, kwargs)
        if not shortened(case, states) or kwargs["attention_mask"] is None:
            return None
        size = states.shape[1]
        causal = torch.ones(size, size).tril().bool()[None, None]
        return args, {**kwargs, "attention_mask": causal.expand(len(states), 1, -1, -1)}

    sabotage(3, fault)
    assert columns(case, CUT) >= {"batch", "prefill"}


def test_a_mask_of_a_decode_step_that_hides_too_much(case: Case, sabotage: Any) -> None:
    def fault(module: Any, args: Any, kwargs: Any) -> Any:
        states = states_of(args, kwargs)
        if states.shape[1] > 1 or kwargs["attention_mask"] is None:
            return None
        mask = kwargs["attention_mask"].clone()
        mask[..., -4:-2] = False
        return args, {**kwargs, "attention_mask": mask}

    sabotage(3, fault)
    assert columns(case, CUT) == {"decode"}


def test_rows_gathered_in_a_wrong_order(case: Case, sabotage: Any) -> None:
    def fault(module: Any, args: Any, kwargs: Any) -> Any:
        states = states_of(args, kwargs)
        if not shortened(case, states):
            return None
        return with_states(args, kwargs, torch.cat([states[:, :-2], states[:, -2:].flip(1)], 1))

    sabotage(2, fault)
    assert "prefill" in columns(case, CUT)


def test_positions_that_were_not_gathered(case: Case, sabotage: Any) -> None:
    def fault(module: Any, args: Any, kwargs: Any) -> Any:
        states = states_of(args, kwargs)
        if not shortened(case, states):
            return None
        rolled = tuple(table.roll(1, dims=-2) for table in kwargs["position_embeddings"])
        return args, {**kwargs, "position_embeddings": rolled}

    sabotage(3, fault)
    assert columns(case, CUT) >= {"prefill", "decode"}


@pytest.mark.parametrize("method", [EvoPrune(keep=0.5), Random(keep=4, layer=None)])
def test_a_state_changed_behind_the_tower(case: Case, sabotage: Any, method: Any) -> None:
    def fault(module: Any, args: Any, kwargs: Any) -> Any:
        states = states_of(args, kwargs)
        if not shortened(case, states):
            return None
        changed = states.clone()
        changed[:, -1] += 0.5
        return with_states(args, kwargs, changed)

    sabotage(1, fault)
    assert columns(case, method) >= {"prefill", "decode"}


def test_a_neutral_setting_that_changes_something(case: Case, sabotage: Any) -> None:
    def fault(module: Any, args: Any, kwargs: Any) -> Any:
        states = states_of(args, kwargs)
        if states.shape[1] == 1 or shortened(case, states):
            return None
        return with_states(args, kwargs, states * 1.01)

    sabotage(3, fault)
    assert columns(case, CUT) == {"neutral"}


@pytest.mark.parametrize("length", ["held", "said"])
def test_a_cache_of_another_length(
    case: Case, monkeypatch: pytest.MonkeyPatch, length: str
) -> None:
    attach, handles = Run.attach, []

    def fault(module: Any, args: Any, output: Any) -> None:
        cache = output.get("cache") or output.get("past_key_values")
        if cache is None:
            return
        layer = cache.layers[4]
        if length == "held":
            layer.keys, layer.values = layer.keys[..., 1:, :], layer.values[..., 1:, :]
        else:
            said = layer.get_seq_length()
            layer.get_seq_length = lambda: said + 1

    def attached(run: Run) -> Run:
        attach(run)
        handles.append(case.model.register_forward_hook(fault))
        return run

    def detached(run: Run) -> None:
        handles.pop().remove()
        detach(run)

    detach = Run.detach
    monkeypatch.setattr(Run, "attach", attached)
    monkeypatch.setattr(Run, "detach", detached)
    assert "cache" in columns(case, TRIMMED)


def lie(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """The engine does other things than its trace says."""
    honest = Run.trace.fget
    assert honest is not None
    monkeypatch.setattr(Run, "trace", property(lambda run: [change(e) for e in honest(run)]))


def test_other_tokens_gathered_than_selected(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(entry: Any) -> Any:
        kept = [
            [torch.arange(len(own)) if bool(own[-1] >= len(own)) else own + 1 for own in sample]
            for sample in entry.kept
        ]
        return dataclasses.replace(entry, kept=kept)

    lie(monkeypatch, other)
    assert columns(case, CUT) >= {"prefill", "decode"}


def test_a_trim_that_did_not_happen(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    lie(monkeypatch, lambda entry: dataclasses.replace(entry, trim_cache=True))
    assert columns(case, CUT) == {"decode", "cache"}


def test_a_layer_that_did_not_forget(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    lie(monkeypatch, lambda entry: dataclasses.replace(entry, forgets=(4,)))
    assert columns(case, CUT) == {"decode", "cache"}


@pytest.mark.parametrize(
    "edit",
    [
        Edit("keep", "keep"),
        Edit("half", "keep"),
        Edit("cut", "cut"),
        Edit("cut", "keep", renormalise=True),
        Edit("merge", "keep"),
    ],
)
def test_another_edit_of_attention_than_was_asked_for(
    case: Case, monkeypatch: pytest.MonkeyPatch, edit: Edit
) -> None:
    lie(monkeypatch, lambda entry: dataclasses.replace(entry, edits={1: edit}))
    assert columns(case, Knockout(layers=(1,))) >= {"prefill", "decode"}


@dataclasses.dataclass(frozen=True)
class Crowded(Random):
    """Chooses other tokens in company. It has no name of its own: it is no method to be found."""

    def score(self, stage: int, view: Any) -> Tensor:
        scores = super().score(stage, view)
        return -scores if view.samples > 1 else scores


def test_a_choice_that_depends_on_the_batch(case: Case) -> None:
    report = prunus.check(case.model, None, [Crowded(keep=4)], prompts=prompts_of(case))
    assert failed(report) == {"batch"}
    assert "keeps other tokens in a batch than alone" in str(report)


@dataclasses.dataclass(frozen=True)
class Crossed(EvoPrune):
    """In company the first two tokens that merge in a block go where the other goes."""

    def crosses(self, view: Any) -> bool:
        return bool(view.samples > 1)

    def merge(self, view: Any) -> Any:
        found = super().merge(view)
        if not self.crosses(view) or found.pairs is None or found.pairs[0].shape[1] < 2:
            return found
        source, into = found.pairs
        into = torch.cat([into[:, :2].flip(1), into[:, 2:]], dim=1)
        return Selection.merge(view, source, into, found.by_size, found.scores, found.carry)


@dataclasses.dataclass(frozen=True)
class Tossed(Crossed):
    """The same, and where a digit says so that rounding makes."""

    def crosses(self, view: Any) -> bool:
        tossed = float(view.states.double().sum()) * 1e5 % 1 > 0.5
        return tossed != (view.samples > 1)


@pytest.mark.parametrize(("method", "faults"), [(Crossed, {"batch"}), (Tossed, set())])
def test_merges_that_depend_on_the_batch(
    llava: Case, method: type[EvoPrune], faults: set[str]
) -> None:
    """What goes into what differs at first, and then what is left."""
    one = method(keep=0.5, schedule="mean", start=0)
    report = prunus.check(llava.model, None, [one], prompts=prompts_of(llava))
    assert "tokens in a batch than alone" in str(report)
    assert failed(report) == faults
    assert ("where rounding decides" in str(report)) == (method is Tossed)


def left(monkeypatch: pytest.MonkeyPatch, leave: Callable[[], object]) -> None:
    detach = Run.detach

    def detached(run: Run) -> None:
        detach(run)
        leave()

    monkeypatch.setattr(Run, "detach", detached)


def test_a_hook_left_behind(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = case.model.model.language_model.layers[1]
    left(monkeypatch, lambda: layer.mlp.register_forward_hook(lambda *_: None))
    report = prunus.check(case.model, None, [CUT], prompts=prompts_of(case))
    assert failed(report) == {"exit"}
    assert "model.language_model.layers.1.mlp: forward hook left" in str(report)


def test_a_hook_left_behind_by_a_refusal(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = case.model.model.language_model.layers[1]

    def refuse(run: Run) -> Run:
        layer.register_forward_pre_hook(lambda *_: None)
        raise PrunusError("not today")

    monkeypatch.setattr(Run, "attach", refuse)
    report = prunus.check(case.model, None, [CUT], prompts=prompts_of(case))
    assert failed(report) == {"exit"} and "a refusal left" in str(report)


def test_an_attribute_left_behind(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    left(monkeypatch, lambda: setattr(case.model.model, "leftover", 1))
    assert columns(case, CUT) == {"exit"}


def test_a_function_left_in_place_of_another(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    left(monkeypatch, lambda: setattr(case.model, "generate", case.model.generate))
    assert "exit" in columns(case, CUT)


@pytest.mark.parametrize("what", ["another", "changed"])
def test_a_configuration_left_behind(
    case: Case, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    attention = case.model.model.language_model.layers[2].self_attn

    def leave() -> None:
        if what == "another":
            attention.config = type(attention.config)(**attention.config.to_dict())
        else:
            attention.config.attention_dropout = 0.25

    left(monkeypatch, leave)
    assert "exit" in columns(case, CUT)


def test_a_weight_that_was_changed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = case.model.model.language_model.layers[2].mlp.down_proj.weight

    def leave() -> None:
        with torch.no_grad():
            weight.mul_(1.0 + 1e-7).add_(1e-6)

    left(monkeypatch, leave)
    assert "exit" in columns(case, CUT)


def test_a_model_that_runs_unpruned(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does that was compiled before: hooks that are added later are not seen."""
    monkeypatch.setattr(Run, "attach", lambda run: run)
    report = prunus.check(case.model, None, [CUT], prompts=prompts_of(case))
    assert "prefill" in failed(report) and "ran unpruned" in str(report)


@dataclasses.dataclass(frozen=True)
class Broken(Random):
    """Has a bug, or refuses."""

    error: type[Exception] = KeyError

    def score(self, stage: int, view: Any) -> Tensor:
        raise self.error("from the method")


def test_a_bug_is_a_failure_and_leaves_nothing(case: Case) -> None:
    report = prunus.check(case.model, None, [Broken(keep=3)], prompts=prompts_of(case))
    assert not report.ok and "raised KeyError" in str(report)
    assert report.rows[0].cells["exit"].status == "ok"


def test_a_later_method_is_not_blamed_for_an_earlier_ones_leftovers(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    detach, once = Run.detach, []

    def detached(run: Run) -> None:
        detach(run)
        if not once:
            once.append(case.model.register_forward_hook(lambda *_: None))

    monkeypatch.setattr(Run, "detach", detached)
    report = prunus.check(case.model, None, [CUT, TRIMMED], prompts=prompts_of(case))
    assert [row.status for row in report.rows] == ["failed", "ok"]
