"""Several threads on one pruned model: each gets what it would have got alone."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import TextIteratorStreamer

import prunus
from prunus import CLSE, EvoPrune, Knockout, Random, Uniform, VisiPruner
from tests.support.llava import llava_clip
from tests.support.models import Case, prompts_for
from tests.support.random_selectors import RandomStepwise
from tests.support.runs import gap

METHODS = {
    "cut": Uniform(keep=5),
    "before": Random(keep=4, layer=None),
    "rows": CLSE(keep=12, variant="released"),
    "tower": EvoPrune(keep=0.5),
    "edit": Knockout(layers=(1, 2), mask="both", forget=True),
    "decides": VisiPruner(layer_threshold=2, relative=0.1, shallow_layers=1, exit_count=2),
    "learned": RandomStepwise(bias=-1.0),
}
GREEDY: dict[str, Any] = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}


@pytest.fixture(autouse=True)
def hurried() -> Any:
    """Threads change over as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(jobs: list[Callable[[], None]]) -> list[BaseException]:
    """What went wrong in ``jobs``, each in a thread of its own."""
    wrong: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def outcome(model: Any, run: prunus.Run, inputs: dict[str, Any], generate: bool) -> Any:
    with torch.no_grad():
        if generate:
            result = model.generate(**inputs, **GREEDY)
        else:
            result = model(**inputs, use_cache=False).logits
    kept = [k.tolist() for entry in run.trace for sample in entry.kept for k in sample]
    return result, kept, run.report()["tokens"]["per_layer"]


def agrees(found: Any, expected: Any, mask: Any) -> bool:
    same = found[1:] == expected[1:]
    if found[0].is_floating_point():
        return same and gap(found[0], expected[0], mask) < 1e-4
    return same and torch.equal(found[0], expected[0])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_four_threads_fifty_prompts(name: str) -> None:
    """Prompts of different shapes, with and without images, forward and generate in turn."""
    model, prompts = llava_clip(), prompts_for("llava-clip")
    shapes = [(1,), (2, 1), (1, 0, 2), (3,)]
    batches = [prompts.rows(*shape, seed=seed, text=4 + seed) for seed, shape in enumerate(shapes)]
    with prunus.prune(model, METHODS[name]) as run:
        alone = [
            [outcome(model, run, batch, generate) for generate in (False, True)]
            for batch in batches
        ]

        def job(number: int) -> Callable[[], None]:
            def work() -> None:
                for turn in range(50):
                    which, generate = (number + turn) % 4, bool(turn % 3 == 0)
                    found = outcome(model, run, batches[which], generate)
                    mask = batches[which]["attention_mask"]
                    assert agrees(found, alone[which][generate], mask), (which, turn)

            return work

        assert together([job(number) for number in range(4)]) == []
        assert run.prompts == 8 + 200


def test_tasks_in_executors(llava: Case) -> None:
    batches = [llava.prompts.rows(1, seed=seed, text=4 + seed) for seed in range(4)]
    with prunus.prune(llava.model, METHODS["rows"]) as run:
        alone = [outcome(llava.model, run, batch, True) for batch in batches]

        async def ask(number: int) -> Any:
            return await asyncio.to_thread(outcome, llava.model, run, batches[number], True)

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(ask(turn % 4) for turn in range(24)))

        for turn, found in enumerate(asyncio.run(all_of_them())):
            assert agrees(found, alone[turn % 4], None)


def test_what_a_thread_sees_is_its_own(llava: Case) -> None:
    batches = [llava.prompts.rows(1), llava.prompts.rows(2)]
    sizes = {}
    with prunus.prune(llava.model, Uniform(keep=5)) as run:

        def job(number: int) -> Callable[[], None]:
            def work() -> None:
                outcome(llava.model, run, batches[number], False)
                barrier.wait()
                sizes[number] = run.report()["tokens"]["original"]

            return work

        barrier = threading.Barrier(2, timeout=30)  # broken, if one of them fails
        assert together([job(0), job(1)]) == []
        assert sizes == {0: 16, 1: 32}
        assert run.report()["tokens"]["original"] in (16, 32)  # one that never ran sees the last


class Slow(TextIteratorStreamer):
    """Waits behind the first token until it is told to go on."""

    def __init__(self) -> None:
        self.started, self.go = threading.Event(), threading.Event()

    def put(self, value: Any) -> None:
        self.started.set()
        self.go.wait(10)

    def end(self) -> None:
        pass


def test_leaving_while_a_stream_generates(llava: Case) -> None:
    """The stream ends with an error that says why; the model is clean afterwards."""
    inputs = llava.prompts.rows(1)
    with torch.no_grad():
        dense = llava.model(**inputs).logits
    errors: list[BaseException] = []
    streamer = Slow()

    def stream() -> None:
        try:
            llava.model.generate(**inputs, max_new_tokens=200, streamer=streamer)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=stream)
    with prunus.prune(llava.model, Uniform(keep=5)):
        thread.start()
        streamer.started.wait(10)
        threading.Timer(0.2, streamer.go.set).start()
    thread.join(20)
    assert not thread.is_alive()
    assert [type(error) for error in errors] == [prunus.PrunusStateError]
    assert "ended while generate()" in str(errors[0])
    with torch.no_grad():
        assert torch.equal(llava.model(**inputs).logits, dense)


def test_leaving_while_threads_call_the_model(llava: Case) -> None:
    """A forward that has begun ends as it began, pruned or not, wherever the block begins or
    ends."""
    inputs = llava.prompts.rows(2, 1)
    with torch.no_grad():
        dense = llava.model(**inputs, use_cache=False).logits
        with prunus.prune(llava.model, METHODS["tower"]):
            pruned = llava.model(**inputs, use_cache=False).logits
    mask, stop = inputs["attention_mask"], threading.Event()

    def work() -> None:
        with torch.no_grad():
            while not stop.is_set():
                found = llava.model(**inputs, use_cache=False).logits
                assert min(gap(found, one, mask) for one in (dense, pruned)) < 1e-4

    def leave() -> None:
        try:
            for _ in range(15):
                with prunus.prune(llava.model, METHODS["tower"]), torch.no_grad():
                    found = llava.model(**inputs, use_cache=False).logits
                assert gap(found, pruned, mask) < 1e-4
        finally:
            stop.set()

    assert together([work, work, leave]) == []
