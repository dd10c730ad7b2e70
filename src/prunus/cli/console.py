"""Where output goes: results on standard output, everything else on standard error."""

from __future__ import annotations

import itertools
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def out() -> Console:
    """Console on standard output; made anew, so that redirection is respected."""
    return Console(highlight=False)


def err() -> Console:
    """Console on standard error."""
    return Console(stderr=True, highlight=False)


#: Seconds until the first line about progress that is written to no terminal, and between two.
_FIRST, _EVERY = 10.0, 60.0

#: Warnings of this call of the command line, in their order.
_warned: list[str] = []


def print_result(facts: Mapping[str, Any]) -> None:
    """Print what a command found as one JSON object, with the ``warnings`` that were shown on
    standard error until now, each once."""
    print_json({**facts, "warnings": list(dict.fromkeys(_warned))})


def print_json(value: Any) -> None:
    """Print exactly one JSON object on standard output, and nothing of rich's formatting."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def plain_warnings() -> None:
    """Show warnings as one line on standard error, without file and source line, and remember
    them for :func:`print_result`."""
    _warned.clear()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        _warned.append(text)
        sys.stderr.write(f"warning: {text}\n")

    warnings.showwarning = show


def quiet_transformers() -> None:
    """No progress bars or log lines of transformers: ours say the same, shorter."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


@contextmanager
def busy(text: str) -> Iterator[None]:
    """A spinner on standard error for a step whose length is unknown."""
    console = err()
    if not console.is_terminal:
        yield
        return
    with console.status(escape(text)):
        yield


@contextmanager
def progress(text: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar of ``total`` steps on standard error; call what it yields after each step."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = err()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(text, total=total)
        yield lambda: bars.advance(task)


@contextmanager
def steps_of(text: str) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error, or, where that is no terminal, a line after ten seconds and then one
    a minute; call what it yields at the start of each step, with the step's name and the number of
    steps."""
    console = err()
    following = time.monotonic() + _FIRST
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(text, total=None)
        begun = itertools.count()

        def started(name: str, total: int) -> None:
            nonlocal following
            done = next(begun)
            bars.update(task, description=f"{text} {name}", total=total, completed=done)
            if not console.is_terminal and time.monotonic() >= following:
                following = time.monotonic() + _EVERY
                line = f"{text} {name}: {done} of {total} done"
                console.print(line, markup=False, soft_wrap=True)

        yield started
