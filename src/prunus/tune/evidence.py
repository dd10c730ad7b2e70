"""What the answers to some questions say of a column: what was lost, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.compare.course import Course, Ledger
from prunus.compare.rows import ratio_of
from prunus.evaluate.scoring import is_right
from prunus.tune.bounds import Loss, loss_of
from prunus.tune.goal import Costs


class Evidence:
    """Answers of a course.

    Args:
        course: whose ledgers hold them.
        answered: whether answers are given; otherwise the dense model's own are right.
    """

    def __init__(self, course: Course, answered: bool) -> None:
        self._course, self._answered = course, answered

    def images(self, numbers: Sequence[int]) -> NDArray[np.int64]:
        """``[questions]``: which image each is about."""
        return np.array([self._course.data.queries[n].image for n in numbers])

    def right(self, ledger: Ledger, numbers: Sequence[int]) -> NDArray[np.float64]:
        """``[questions]``, 1 where an answer is right."""
        queries, dense = self._course.data.queries, self._course.dense.given
        truths = [queries[n].answer if self._answered else dense[n].text for n in numbers]
        found = [
            is_right(ledger.given[n].text, truth) for n, truth in zip(numbers, truths, strict=True)
        ]
        return np.array(found, dtype=np.float64)

    def change(self, ledger: Ledger, numbers: Sequence[int]) -> NDArray[np.float64]:
        """``[questions]``: +1 of each that was won, -1 of each that was lost."""
        return self.right(ledger, numbers) - self.right(self._course.dense, numbers)

    def loss(self, ledger: Ledger, numbers: Sequence[int]) -> Loss:
        """What was lost."""
        return loss_of(self.change(ledger, numbers), self.images(numbers))

    def costs(self, ledger: Ledger, numbers: Sequence[int], time: float | None) -> Costs:
        """What it costs; ``time`` is known elsewhere."""
        kv = self.figures(ledger, numbers, "kv")
        return Costs(
            flops=ratio_of([ledger], numbers, "flops"),
            kv=ratio_of([ledger], numbers, "kv"),
            most_kv=max(kv) if kv else None,
            time=time,
        )

    def figures(self, ledger: Ledger, numbers: Sequence[int], name: str) -> list[float]:
        """One figure of every answer's report; none where any has not got it."""
        costs: list[Any] = [ledger.given[n].cost for n in numbers]
        if any(cost is None or cost[name] is None for cost in costs):
            return []
        return [float(cost[name]) for cost in costs]
