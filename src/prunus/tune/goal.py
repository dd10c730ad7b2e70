"""What matters: how much may be lost, how fast it must be, how much memory there is."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from prunus.errors import PrunusError, shown

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Costs:
    """What a candidate needs: shares of the dense model's of ``flops`` (all of them), ``kv`` bytes
    and ``time`` of a prefill; ``most_kv``, bytes of the largest prompt. None of what is unknown."""

    flops: float | None = None
    kv: float | None = None
    most_kv: float | None = None
    time: float | None = None

    @property
    def share(self) -> float | None:
        """Of time where it was measured, else of FLOPs."""
        return self.flops if self.time is None else self.time


@dataclass(frozen=True)
class Goal:
    """Bounds: ``max_loss`` of accuracy, in 0..1; ``min_speed_up`` of a prefill, dense over pruned;
    ``max_kv`` in bytes of any one prompt, ``max_kv_share`` as a share of the dense model's.

    Within ``max_loss`` what needs least is wanted; without it, what loses least.

    Raises:
        PrunusError: none of them, or one out of range.
    """

    max_loss: float | None = None
    min_speed_up: float | None = None
    max_kv: float | None = None
    max_kv_share: float | None = None

    def __post_init__(self) -> None:
        if not self.given:
            raise PrunusError(
                "say what matters: --max-loss (points of accuracy), --min-speed-up, or --max-kv"
            )
        if self.max_loss is not None and not 0 < self.max_loss < 1:
            raise PrunusError(
                f"a loss of {100 * self.max_loss:g} points: give more than 0 and less than 100 (no "
                "number of questions shows that nothing at all is lost)"
            )
        if self.min_speed_up is not None and not 1 < self.min_speed_up < math.inf:
            raise PrunusError(
                f"a speed-up of {self.min_speed_up:g}: give more than 1, as in 1.5 (times as fast)"
            )
        if self.max_kv is not None and not 0 < self.max_kv < math.inf:
            raise PrunusError(f"{self.max_kv:g} bytes: give more than 0")
        if self.max_kv_share is not None and not 0 < self.max_kv_share < 1:
            raise PrunusError(
                f"a share of {100 * self.max_kv_share:g} % of the KV bytes: give more than 0 and "
                "less than 100 %"
            )

    @property
    def given(self) -> dict[str, float]:
        """Those that there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def words(self) -> str:
        """All of them, for people."""
        found = []
        if self.max_loss is not None:
            found.append(f"at most {100 * self.max_loss:g} points lost")
        if self.min_speed_up is not None:
            found.append(f"at least {self.min_speed_up:g} times as fast")
        if self.max_kv is not None:
            found.append(f"at most {self.max_kv / 1e6:,.3g} MB of KV cache for a prompt")
        if self.max_kv_share is not None:
            found.append(f"at most {100 * self.max_kv_share:g} % of the KV bytes")
        return ", ".join(found)

    def why_not(self, costs: Costs) -> str | None:
        """Why something of these costs is not wanted, whatever it answers; None: it may be."""
        share = costs.share
        if share is None and (self.min_speed_up is not None or self.max_loss is not None):
            return "its FLOPs are not counted for this model, and it was not timed"
        if share is not None and self.max_loss is not None and share >= 1:
            return f"needs {100 * share:.0f} % of what the dense model needs"
        if self.min_speed_up is not None and share is not None and share * self.min_speed_up > 1:
            return f"is {1 / share:.2f} times as fast"
        for limit, value, told in (
            (self.max_kv, costs.most_kv, "{:,.0f} bytes of KV cache"),
            (self.max_kv_share, costs.kv, "{:.1%} of the KV bytes"),
        ):
            if limit is not None and value is None:
                return "its KV bytes are not counted for this model"
            if limit is not None and value is not None and value > limit:
                return f"needs {told.format(value)}"
        return None


def parse_kv(text: str) -> dict[str, float]:
    """``40MB``, ``40 MiB`` or ``25%`` as an argument of :class:`Goal`.

    Raises:
        PrunusError: something else.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(%|[A-Za-z]*)", text.strip())
    if found is None or (found[2] != "%" and found[2].upper() not in _UNITS):
        raise PrunusError(
            f"--max-kv {shown(text)}: give bytes of one prompt, as in 40MB or 64MiB, or a share of "
            "the dense model's, as in 25%"
        )
    if found[2] == "%":
        return {"max_kv_share": float(found[1]) / 100}
    return {"max_kv": float(found[1]) * _UNITS[found[2].upper()]}
