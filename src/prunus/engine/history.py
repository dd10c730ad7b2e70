"""What every prompt of a loop leaves behind: reports, the last so many of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from prunus.cost.report import build_report
from prunus.engine.plan import Plan
from prunus.engine.prefill import Prefill
from prunus.engine.record import make_record
from prunus.errors import PrunusError, PrunusTypeError, shown
from prunus.families import Family
from prunus.results.report import Report

#: Called with the report of each prompt.
OnReport = Callable[[Report], object]
_MOST = 1_000_000


class History:
    """Takes the report of each prompt with an image, as it comes to its end, in any thread.

    Args:
        family, plan: of the run.
        size: the last so many reports are kept; 0: none.
        on_report: is called with each, in the thread of its prompt.

    Raises:
        PrunusError, PrunusTypeError: a size that is none, or something that cannot be called.
    """

    def __init__(self, family: Family, plan: Plan, size: int, on_report: OnReport | None) -> None:
        if isinstance(size, bool) or not isinstance(size, int):
            raise PrunusTypeError(f"history={shown(size)}: give a whole number of reports to keep")
        if not 0 <= size <= _MOST:
            raise PrunusError(f"history={shown(size)}: keep from 0 to {_MOST} reports")
        if on_report is not None and not callable(on_report):
            raise PrunusTypeError(f"on_report={shown(on_report)}: give a function of a report")
        self._family, self._plan, self._on_report = family, plan, on_report
        self.size = size
        self._kept: deque[Report] = deque(maxlen=size)

    @property
    def reports(self) -> tuple[Report, ...]:
        """Those that are kept, the oldest first."""
        return tuple(self._kept)

    def take(self, prefill: Prefill) -> None:
        """The prompt ``prefill`` came to its end. Nothing is counted where nobody asks for it."""
        if not self.size and self._on_report is None:
            return
        report = build_report(make_record(prefill, self._plan), self._family, self._plan.title)
        self._kept.append(report)
        if self._on_report is not None:
            self._on_report(report)
