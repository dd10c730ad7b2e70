"""Reports of every prompt, runs and traces in print, models that stay pruned, docs/python.md."""

from __future__ import annotations

import gc
import inspect
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import prunus
from prunus.errors import PrunusError, PrunusStateError, PrunusTypeError
from tests.support.models import Case

ROOT = Path(__file__).resolve().parents[2]


def ask(case: Case) -> Any:
    with torch.no_grad():
        return case.model(**case.prompts.rows(1)).logits


def test_the_last_prompts_are_kept_and_no_more(llava: Case) -> None:
    seen: list[prunus.Report] = []
    with prunus.prune(llava.model, "clse", keep=5, history=2, on_report=seen.append) as run:
        assert run.history == ()
        for _ in range(3):
            ask(llava)
            assert run.history[-1] == run.report()
    assert len(seen) == 3 and run.prompts == 3
    assert list(run.history) == seen[1:] and seen[0] == seen[2]
    assert seen[0]["tokens"]["kept"] == 5


def test_nothing_is_kept_unless_it_is_asked_for(
    llava: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a report was made that nobody asked for")

    monkeypatch.setattr("prunus.engine.history.build_report", refuse)
    with prunus.prune(llava.model, "clse", keep=5) as run:
        ask(llava)
    with pytest.raises(PrunusStateError, match="history=100"):
        _ = run.history


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"history": -1}, PrunusError),
        ({"history": 1.5}, PrunusTypeError),
        ({"history": True}, PrunusTypeError),
        ({"history": 10**9}, PrunusError),
        ({"on_report": "print"}, PrunusTypeError),
    ],
)
def test_what_is_no_history_is_refused(
    llava: Case, given: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=next(iter(given))):
        prunus.prune(llava.model, "clse", **given)


def test_what_the_function_raises_comes_out_and_the_model_goes_on(llava: Case) -> None:
    def stop(report: prunus.Report) -> None:
        raise KeyError(report["tokens"]["kept"])

    dense = ask(llava)
    with prunus.prune(llava.model, "clse", keep=5, on_report=stop):
        with pytest.raises(KeyError, match="5"):
            ask(llava)
    assert torch.equal(ask(llava), dense)


def test_the_function_may_end_it_in_any_thread(llava: Case) -> None:
    """Nobody waits for a thread whose own report ended the pruning, nor two such for each other."""
    dense, both = ask(llava), threading.Barrier(2)

    def end(_: prunus.Report) -> None:
        both.wait(30)
        run.detach()

    run = prunus.prune(llava.model, "clse", keep=5, on_report=end)
    with ThreadPoolExecutor(2) as pool, run:
        pruned = [job.result() for job in [pool.submit(ask, llava) for _ in range(2)]]
        start = time.monotonic()
        run.detach()  # the threads are alive, and wait for work
        assert torch.equal(ask(llava), dense)
    assert torch.equal(*pruned) and not torch.equal(pruned[0], dense)
    assert time.monotonic() - start < 20 and both.n_waiting == 0
    with prunus.prune(llava.model, "clse", keep=5):
        assert torch.equal(ask(llava), pruned[0])
    assert torch.equal(ask(llava), dense)


def test_reports_of_all_threads_are_there(llava: Case) -> None:
    with prunus.prune(llava.model, "clse", keep=5, history=10) as run:
        threads = [threading.Thread(target=ask, args=(llava,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(run.history) == 3


def test_an_attached_model_stays_pruned_without_its_run(llava: Case) -> None:
    model, dense = llava.model, ask(llava)
    prunus.attach(model, "clse", keep=5)
    gc.collect()
    pruned = ask(llava)
    assert not torch.equal(pruned, dense)
    with pytest.raises(PrunusStateError, match="pruned already"):
        prunus.attach(model, "fastv", keep=5)
    prunus.detach(model)
    assert torch.equal(ask(llava), dense)
    prunus.detach(model)  # nothing happens
    run = prunus.attach(model, "clse", keep=5)
    run.detach()
    assert torch.equal(ask(llava), dense)
    with prunus.prune(model, "clse", keep=5):
        with pytest.raises(PrunusStateError, match="leave the block"):
            prunus.detach(model)
    assert torch.equal(ask(llava), dense)


def test_a_run_and_its_trace_in_print(llava: Case) -> None:
    with prunus.prune(llava.model, "clse", keep=5) as run:
        assert re.fullmatch(r"<prunus.Run of clse\(keep=5\) on \w+, pruning, 0 prompts>", str(run))
        ask(llava)
    told = str(run)
    assert told.splitlines()[0] == repr(run) and str(run.report()) in told
    assert "not pruning, 1 prompt>" in repr(run)
    [entry] = run.trace
    assert re.fullmatch(
        r"<clse at decoder, layer 1: \d+ of \d+ visual tokens of \d+ images? in \d samples?>",
        repr(entry),
    )
    assert "tensor" not in str(run.trace)


def test_every_public_name_says_what_it_is() -> None:
    for name in prunus.__all__:
        thing = getattr(prunus, name)
        assert inspect.getdoc(thing), name
        if not inspect.isclass(thing):
            continue
        for part, value in vars(thing).items():
            own = value.fget if isinstance(value, property) else value
            if not part.startswith("_") and inspect.isfunction(own):
                assert inspect.getdoc(getattr(thing, part)), f"{name}.{part}"


def test_the_package_is_typed() -> None:
    assert (Path(prunus.__file__).parent / "py.typed").is_file()


def test_the_page_about_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    told = capsys.readouterr().out
    assert len(blocks) == 5 and "576 -> 144" in told and "did you mean 'pyramiddrop'" in told
    assert "<clse at decoder, layer 1: 144 of 576 visual tokens of 1 image in 1 sample>" in told
