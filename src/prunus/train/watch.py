"""Who looks on while a selector is trained."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class Watch:
    """Is told what happens, and shows nothing."""

    def start(self, step: int, steps: int) -> None:
        """``step`` of ``steps`` are done already."""

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """``step`` are done; ``figures`` are the latest means (empty at first)."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class Display(Watch):
    """A bar on ``console`` with loss, LM loss, mean K and accuracy, used as a ``with`` block.
    Where ``console`` is no terminal, only notes are shown."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("training"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("training", total=None, figures="")

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start(self, step: int, steps: int) -> None:
        self._bars.update(self._task, completed=step, total=steps)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        self._bars.update(self._task, completed=step)
        if figures:
            shown = (
                f"loss {figures['loss']:.3f}  LM {figures['lm']:.3f}  K {figures['kept']:.1f}  "
                f"right {figures['accuracy']:.0%}"
            )
            self._bars.update(self._task, figures=shown)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
