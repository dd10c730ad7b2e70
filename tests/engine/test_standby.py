"""A decode step that has nothing to do in the layers does nothing there: hooks and lent
configurations are out until a call needs them."""

from __future__ import annotations

import gc
import logging
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, Knockout, Method, PrunusStateError, Uniform, VisiPruner
from prunus.engine.decode import Resume
from prunus.pruners.fastv import FastV
from tests.engine.test_passing_threads import visitor
from tests.support.llava import llava_clip
from tests.support.models import Case, prompts_for
from tests.support.runs import decoded, gap

ROOT = str(Path(prunus.__file__).parent)
METHODS: dict[str, Method] = {
    "before": Uniform(keep=5, layer=None),
    "inside": Uniform(keep=5, layer=1),
    "row": CLSE(keep=5, variant="released"),
    "looks": FastV(keep=5),
    "everywhere": VisiPruner(layer_threshold=2, relative=0.1, shallow_layers=1, exit_count=2),
    "edits": Knockout(layers=(1, 2), mask="both"),
}
#: Python functions that a step calls around the decoder layers, however many there are: of prunus,
#: and what these and torch call for its hooks.
OURS, AROUND = 68, 130


def calls_of(call: Callable[[], Any]) -> Counter[str]:
    """Python functions that ``call`` calls, by file."""
    found: Counter[str] = Counter()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            found[frame.f_code.co_filename] += 1

    gc.collect()  # of models that are gone, whose ends are calls, too
    gc.disable()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        gc.enable()
    return found


def ours(calls: Counter[str]) -> int:
    """Those of prunus."""
    return sum(count for name, count in calls.items() if name.startswith(ROOT))


def prompt(*images: int) -> dict[str, Any]:
    return prompts_for("llava-clip").rows(*images)


def step(model: Any, cache: Any, mask: torch.Tensor, token: int = 41) -> torch.Tensor:
    """Logits of one more token behind what ``mask`` (of the prompt and what followed) tells."""
    rows = len(mask)
    out = model(
        input_ids=torch.full((rows, 1), token),
        attention_mask=torch.cat([mask, mask.new_ones(rows, 1)], 1),
        past_key_values=cache,
    )
    logits: torch.Tensor = out.logits
    return logits


def hooks(model: Any) -> list[int]:
    """Hooks before each decoder layer."""
    return [len(layer._forward_pre_hooks) for layer in model.model.language_model.layers]


def counted(model: Any, method: Method | None) -> Counter[str]:
    """Calls of the third decode step behind a prompt."""
    inputs = prompt(1)

    def run() -> Counter[str]:
        mask = inputs["attention_mask"]
        cache = model(**inputs, use_cache=True).past_key_values
        for _ in range(2):
            step(model, cache, mask)
            mask = torch.cat([mask, mask.new_ones(1, 1)], 1)
        return calls_of(lambda: step(model, cache, mask))

    with torch.no_grad():
        if method is None:
            return run()
        with prunus.prune(model, method):
            return run()


@pytest.mark.parametrize("name", METHODS)
def test_a_step_calls_nothing_more_in_a_layer(name: str) -> None:
    """All that it calls beyond the unpruned model's step is around the layers."""
    more, own = [], []
    for depth in (4, 9):
        model = llava_clip(depth)
        found, plain = counted(model, METHODS[name]), counted(model, None)
        more.append(found.total() - plain.total())
        # A cache layer of ours grows by one call, as one of transformers does.
        own.append(ours(found) - (0 if name == "edits" else depth))
        assert ours(plain) == 0
    assert more[0] == more[1] <= AROUND
    assert own[0] == own[1] <= OURS


@pytest.mark.parametrize("name", METHODS)
def test_steps_without_hooks_equal_the_masked_full_length_run(
    case: Case, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, passes = list[bool](), Resume.passes

    def noted(self: Resume, *call: Any) -> bool:
        passed.append(passes(self, *call))
        return passed[-1]

    monkeypatch.setattr(Resume, "passes", noted)
    _, difference = decoded(case, METHODS[name], case.prompts.rows(2), 6)
    assert difference < 1e-4
    assert passed == [True] * (0 if name == "edits" else 5)  # its cache is like any other


def test_hooks_come_back_with_the_next_prompt() -> None:
    model, first, second = llava_clip(), prompt(1), prompt(1, 2)
    lengths = len(hooks(model))
    with prunus.prune(model, METHODS["row"]), torch.no_grad():
        expected = model(**second).logits
        assert hooks(model) == [1] * lengths
        cache = model(**first).past_key_values
        step(model, cache, first["attention_mask"])
        assert hooks(model) == [1] + [0] * (lengths - 1)
        assert torch.equal(model(**second).logits, expected)
        assert hooks(model) == [1] * lengths
    assert hooks(model) == [0] * lengths


@pytest.mark.parametrize("name", METHODS)
def test_a_step_that_needs_them_behind_one_that_does_not(name: str) -> None:
    """Two caches in turn, one of a padded batch; then two tokens at once on the other."""
    model, alone, padded = llava_clip(), prompt(1), prompt(1, 2)
    two = torch.tensor([[41, 42]])

    def run(between: bool) -> list[torch.Tensor]:
        found = []
        first = model(**alone).past_key_values
        second = model(**padded).past_key_values
        mask, other = alone["attention_mask"], padded["attention_mask"]
        for _ in range(2):
            if between:
                step(model, model(**alone).past_key_values, mask)  # takes them out
            found.append(step(model, second, other))
            other = torch.cat([other, other.new_ones(2, 1)], 1)
        if between:
            step(model, model(**alone).past_key_values, mask)
        more = torch.cat([mask, mask.new_ones(1, 2)], 1)
        found.append(model(input_ids=two, attention_mask=more, past_key_values=first).logits)
        return found

    with prunus.prune(model, METHODS[name]), torch.no_grad():
        for one, other in zip(run(True), run(False), strict=True):
            assert torch.equal(one, other)


def test_a_mask_that_hides_something_in_one_step() -> None:
    """The first layer sees it, before the others run."""
    model, inputs = llava_clip(), prompt(1)
    mask, last = inputs["attention_mask"], inputs["input_ids"].shape[1] - 1
    hiding = mask.clone()
    hiding[0, last] = 0
    with prunus.prune(model, METHODS["inside"]), torch.no_grad():
        caches = [model(**inputs).past_key_values for _ in range(3)]
        seen = step(model, caches[0], mask)
        assert hooks(model)[1] == 0
        found = step(model, caches[1], hiding)
        assert hooks(model)[1] == 1
        caches[2].crop(-1)  # the hidden token is not there at all
        position = torch.tensor([[last + 1]])
        ids = torch.tensor([[41]])
        expected = model(input_ids=ids, position_ids=position, past_key_values=caches[2]).logits
    assert gap(found, expected) < 1e-5 < 1e-3 < gap(found, seen)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_while_another_thread_is_in_a_prompt(name: str) -> None:
    """It leaves to the other what that needs; and where it took them out, the other brings them."""
    model, inputs, other = llava_clip(), prompt(1), prompt(2, 1)
    mask, longer = inputs["attention_mask"], inputs["attention_mask"].new_ones(1, 1)
    places = [f"model.language_model.layers.{number}" for number in (0, 1, 2)]
    with prunus.prune(model, METHODS[name]), torch.no_grad():
        expected = model(**other, use_cache=False).logits
        cache = model(**inputs).past_key_values
        steps = [step(model, cache, mask)]
        steps.append(step(model, cache, torch.cat([mask, longer], 1)))

        cache = model(**inputs).past_key_values
        for number, place in enumerate(("model", *places)):
            call = lambda: model(**other, use_cache=False).logits  # noqa: E731
            with visitor(model, call, [place]) as (stops, found):
                stops.reached()
                assert torch.equal(step(model, cache, mask), steps[0]), place
                inside = place in places
                assert hooks(model)[3] == (1 if inside else 0), number
                cache.crop(-1)
                stops.go.release()
            assert torch.equal(found[0], expected), place
        for place in places:
            with visitor(model, lambda: step(model, cache, mask), [place]) as (stops, found):
                stops.reached()
                assert torch.equal(model(**other, use_cache=False).logits, expected)
                stops.go.release()
            assert torch.equal(found[0], steps[0]), place
            cache.crop(-1)


def test_threads_that_decode_give_what_they_give_alone() -> None:
    model = llava_clip()
    prompts = [prompt(1), prompt(2, 1), prompt(1, 1), prompt(2)]
    options: dict[str, Any] = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    with prunus.prune(model, METHODS["row"]), torch.no_grad():
        alone = [model.generate(**one, **options) for one in prompts]
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(model.generate, **prompts[n % 4], **options) for n in range(16)]
            for number, job in enumerate(jobs):
                assert torch.equal(job.result(), alone[number % 4])


def test_hooks_of_others_keep_their_places() -> None:
    """One that stood there before sees whole states, one that came later pruned ones."""
    model, inputs = llava_clip(), prompt(1)
    layer, seen = model.model.language_model.layers[2], list[tuple[str, int]]()

    def note(name: str) -> Any:
        return layer.register_forward_pre_hook(
            lambda module, args: seen.append((name, args[0].shape[1]))
        )

    note("first")
    with prunus.prune(model, Uniform(keep=5, layer=2)), torch.no_grad():
        note("last")
        cache = model(**inputs).past_key_values
        before = list(seen)
        step(model, cache, inputs["attention_mask"])
        assert len(layer._forward_pre_hooks) == 2
        seen.clear()
        model(**inputs)
    assert seen == before
    assert before[0][1] > before[1][1]


@pytest.mark.parametrize(
    "shared", ["language_model", "language_model.layers.2", "language_model.layers.2.self_attn"]
)
def test_a_model_that_shares_modules_is_pruned_by_one_alone(shared: str) -> None:
    """The other is as it was, whatever is out."""
    first, inputs = llava_clip(), prompt(1)
    second = llava_clip()
    place, _, name = f"model.{shared}".rpartition(".")
    setattr(second.get_submodule(place), name, first.model.get_submodule(shared))
    with torch.no_grad():
        plain = second(**inputs).logits
        with prunus.prune(first, METHODS["looks"]):
            cache = first(**inputs).past_key_values
            step(first, cache, inputs["attention_mask"])  # takes them out
            assert torch.equal(second(**inputs).logits, plain)
            pruned = first(**inputs).logits
            for name in METHODS:
                step(first, first(**inputs).past_key_values, inputs["attention_mask"])
                with pytest.raises(PrunusStateError, match="shares modules with one"):
                    prunus.prune(second, METHODS[name]).attach()
                assert torch.equal(first(**inputs).logits, pruned)
                assert torch.equal(second(**inputs).logits, plain)
        with prunus.prune(second, METHODS["looks"]):
            assert gap(second(**inputs).logits, plain) > 1e-3
        assert torch.equal(second(**inputs).logits, plain)
    assert hooks(first) == [0] * len(hooks(first))


def test_a_step_that_failed_leaves_no_permission() -> None:
    model, inputs = llava_clip(), prompt(1)

    def explode(*_: Any) -> None:
        raise MemoryError

    with prunus.prune(model, METHODS["before"]), torch.no_grad():
        cache = model(**inputs).past_key_values
        handle = model.model.language_model.layers[2].register_forward_pre_hook(explode)
        with pytest.raises(MemoryError):
            step(model, cache, inputs["attention_mask"])
        handle.remove()
        states = cache.layers[3].keys[:, :, :1]
        with pytest.raises(PrunusStateError, match="can only be continued"):
            cache.layers[3].update(states, states)


def compiled(model: Any, form: str) -> Any:
    """``model`` as a callable that was compiled in one of the usual ways."""
    if form == "layers":
        for layer in model.model.language_model.layers:
            layer.compile(backend="eager")
        return model
    if form == "in place":
        model.compile(backend="eager")
        return model
    return torch.compile(lambda **call: model(**call), backend="eager")


@pytest.mark.parametrize("form", ["layers", "in place", "wrapped"])
def test_compiled_code_keeps_them(form: str) -> None:
    """What is compiled where no hook stands does not ask for one later."""
    torch._dynamo.reset()
    logging.getLogger("torch.__trace").setLevel(logging.ERROR)
    model, inputs, padded = llava_clip(3), prompt(1), prompt(1, 2)
    longer = torch.cat([inputs["attention_mask"], torch.ones(1, 1, dtype=torch.long)], 1)
    with prunus.prune(model, METHODS["inside"]), torch.no_grad():
        expected = step(model, model(**padded).past_key_values, padded["attention_mask"])
        cache, other = model(**inputs).past_key_values, model(**padded).past_key_values
        step(model, cache, inputs["attention_mask"])
        assert hooks(model) == [1, 0, 0]
        call = compiled(model, form)
        step(call, cache, longer)
        assert hooks(model) == [1, 1, 1]
        found = step(call, other, padded["attention_mask"])
        whole = call(**padded).logits
        assert torch.equal(model(**padded).logits, whole)
    torch._dynamo.reset()
    assert gap(found, expected) < 1e-5


def test_where_hooks_of_ones_own_stand(llava: Case) -> None:
    """What docs/engine.md says: of a layer that cuts, a hook sees the states in front of the cut or
    behind it by when it was registered."""
    model, inputs = llava.model, prompt(1)
    layer = model.model.language_model.layers[1]
    seen: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda module, args: seen.update({name: args[0].shape[1]})

    handles = [layer.register_forward_pre_hook(note("there before"))]
    with prunus.prune(model, Uniform(keep=5, layer=1)), torch.no_grad():
        handles.append(layer.register_forward_pre_hook(note("inside")))
        handles.append(layer.register_forward_pre_hook(note("in front"), prepend=True))
        cache = model(**inputs, use_cache=True).past_key_values
        step(model, cache, inputs["attention_mask"])
        assert hooks(model)[1] == 3  # ours is out
        late = layer.register_forward_pre_hook(note("in front, later"), prepend=True)
        handles.append(late)
        model(**inputs)
    full = inputs["input_ids"].shape[1]
    gone = full - seen["inside"]
    assert gone > 0
    wanted = {"there before": 0, "inside": gone, "in front": 0, "in front, later": gone}
    assert seen == {name: full - less for name, less in wanted.items()}
    for handle in handles:
        handle.remove()
