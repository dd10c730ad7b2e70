"""Who measures: the built-in questions, lmms-eval, or formulas, all alike to whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from prunus.reproduce.recipe import Arm


@dataclass(frozen=True)
class Measured:
    """``values`` by column, and ``facts`` about how they came about."""

    values: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)


class Judge(Protocol):
    """Measures arms, one job after the other."""

    def jobs(self, arm: Arm) -> Sequence[str]:
        """Names of what is measured of ``arm``, each by itself."""

    def identity(self, arm: Arm, job: str) -> dict[str, Any]:
        """All that the result depends on, as plain values.

        Raises:
            PrunusError: the method of ``arm`` does not exist or does not fit.
        """

    def measure(self, arm: Arm, job: str) -> Measured:
        """Do it.

        Raises:
            PrunusError: the method, or its budget, is refused.
        """
