"""How far a comparison is: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.cli import typed
from prunus.cli.console import err, quiet_transformers

if TYPE_CHECKING:
    from prunus.compare.contract import Comparison
    from prunus.compare.setting import Setting

#: Seconds between two lines where there is no terminal; the first comes sooner.
EVERY = 60.0
FIRST = 10.0


@contextmanager
def watching(place: Path) -> Iterator[Bars | Lines]:
    """Somebody who shows on standard error how far it is; ``place`` is where answers are kept."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    quiet_transformers()
    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        watch: Bars | Lines = Lines(console) if hidden else Bars(bars, console)
        try:
            yield watch
        except KeyboardInterrupt:
            watch.say(f"stopped: the answers so far are in {place}; the same command goes on")
            raise


def watched(setting: Setting, place: Path, workers: int, title: str) -> Comparison:
    """Compare under a progress bar on standard error."""
    from prunus.compare.comparing import compare

    with watching(place) as watch:
        return compare(setting, place, watch, workers=workers, command=typed.command(), title=title)


class Bars:
    """Progress on a terminal."""

    def __init__(self, bars: Any, console: Any) -> None:
        self._bars, self._console = bars, console
        self._task: Any = None

    def stage(self, name: str, total: int, known: int = 0) -> None:
        """A bar of its own for what begins, in the place of the one before."""
        if known:
            self.say(there(name, total, known))
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(name, total=total)

    def step(self, count: int) -> None:
        """The bar grows."""
        self._bars.advance(self._task, count)

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, markup=False, soft_wrap=True)


class Lines:
    """Progress in a file: a line when something long begins, and one a minute while it lasts."""

    def __init__(self, console: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._name, self._total, self._done = "", 0, 0
        self._began = self._next = 0.0

    def stage(self, name: str, total: int, known: int = 0) -> None:
        """Begins to count anew."""
        if known:
            self.say(there(name, total, known))
        elif name == "answers":
            self.say(f"{total:,} answers are to be given")
        self._name, self._total, self._done = name, total, 0
        self._began = self._clock()
        self._next = self._began + FIRST

    def step(self, count: int) -> None:
        """Counts, and says it if it was not said for a while."""
        self._done += count
        now = self._clock()
        if now < self._next or not self._done:
            return
        from prunus.compare.asking import lasting

        self._next = now + EVERY
        left = (self._total - self._done) * (now - self._began) / self._done
        share = f"{self._done / self._total:.0%}" if self._total else "all"
        self.say(
            f"{self._name}: {self._done:,} of {self._total:,} ({share}), about {lasting(left)} left"
        )

    def say(self, line: str) -> None:
        """A line."""
        self._console.print(line, markup=False, soft_wrap=True)


def there(name: str, total: int, known: int) -> str:
    """What is left to do after an earlier run."""
    whole = known + total
    return f"{name}: {known:,} of {whole:,} were there already, {total:,} are to be given"
