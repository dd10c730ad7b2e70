"""Processes that ask: how they begin, how they end, and what their runs are called."""

import multiprocessing
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from prunus.compare import crew
from prunus.compare.setting import RunSpec
from prunus.errors import PrunusError
from tests.compare.small import SMALL


def test_ctrl_c_is_not_for_processes_that_begin() -> None:
    """Not even for the first one, with which Python begins a process of its own."""
    context = multiprocessing.get_context("spawn")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    process = crew.begun(context, signal.raise_signal, signal.SIGINT)
    process.join(120)
    assert process.exitcode == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before and signal.SIGINT not in before


def test_a_process_ends_with_a_listener_that_left_something_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pipe is reset then, not ended."""
    quiet = SimpleNamespace(set_verbosity_error=lambda: None, disable_progress_bar=lambda: None)
    monkeypatch.setattr(crew, "logging", quiet)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    theirs, ours = multiprocessing.Pipe()
    theirs.send("not read")
    ours.close()
    crew._serve(theirs, SMALL)


def test_runs_of_one_name_are_refused() -> None:
    """Rows, pictures and joined comparisons are found by the names of runs."""
    runs = (RunSpec("tiny-llava", "a/mine.jsonl"), RunSpec("tiny-llava", "b/mine.jsonl"))
    with pytest.raises(PrunusError, match=r"would be called 'tiny-llava/mine'.*rename"):
        replace(SMALL, runs=runs)
    other = replace(SMALL, runs=(runs[0], RunSpec("tiny-llava", "b/yours.jsonl")))
    assert [run.id for run in other.runs] == ["tiny-llava/mine", "tiny-llava/yours"]
