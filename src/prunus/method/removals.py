"""How many tokens each block of a vision tower removes, so that exactly the budget is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from prunus.errors import PrunusError

Schedule = Literal["skip", "mean", "first", "last", "increasing", "decreasing"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)


def least(original: int, merging: int, larger: bool = True) -> int:
    """Fewest tokens that ``merging`` bipartite merges can leave: each at most halves them, and of
    an odd number the ``larger`` half can go, or only the smaller one."""
    return max(1, original >> merging if larger else -(-original >> merging))


def shares(
    schedule: Schedule, blocks: int, start: int, some: int | None, growth: float
) -> list[float]:
    """Relative number of tokens that each of ``blocks`` tower blocks removes (EvoPrune, arXiv
    2603.03681, appendix A).

    ``skip``: every second block from ``start`` on, equally. ``mean``: every block. ``first`` and
    ``last``: the first or last ``some`` of them (default: half, rounded up), equally.
    ``increasing`` and ``decreasing``: in proportion to ``l ** growth``, l counted from 1 at
    ``start``, and the same backwards (the paper names a growth rate and gives no formula).

    Raises:
        PrunusError: a ``growth`` with which these numbers are too large.
    """
    count = max(0, blocks - start)
    some = (count + 1) // 2 if some is None else min(some, count)
    own: list[float]
    if schedule == "skip":
        own = [1.0 - number % 2 for number in range(count)]
    elif schedule == "mean":
        own = [1.0] * count
    elif schedule == "first":
        own = [1.0] * some + [0.0] * (count - some)
    elif schedule == "last":
        own = [0.0] * (count - some) + [1.0] * some
    else:
        try:
            own = [float(number) ** growth for number in range(1, count + 1)]
        except OverflowError as error:
            raise PrunusError(f"growth={growth:g} is too large for {count} blocks") from error
        if not math.isfinite(sum(own)):
            raise PrunusError(f"growth={growth:g} is too large for {count} blocks")
        if schedule == "decreasing":
            own.reverse()
    return [0.0] * (blocks - count) + own


def removals(
    original: int, budget: int, weights: Sequence[float], larger: bool = True
) -> list[int]:
    """Tokens that each block removes of ``original``, in proportion to ``weights`` wherever that
    is possible, so that ``budget`` are left.

    A bipartite merge removes at most half of the tokens (rounded up where the ``larger`` half can
    go, else down), which the last blocks cannot always do in proportion. Solved from the last block
    backwards: one that would have to remove more than the tokens it leaves removes that many, and
    the earlier ones share the rest. Rounding leaves the larger numbers to the earlier blocks, which
    makes the tower cheaper.

    Raises:
        PrunusError: more than ``merging`` halvings would be needed; names the least reachable.
    """
    merging = [number for number, weight in enumerate(weights) if weight > 0]
    result = [0] * len(weights)
    if budget >= original:
        return result
    if budget < least(original, len(merging), larger):
        raise PrunusError(
            f"{budget} of {original} visual tokens cannot be reached by merging in {len(merging)} "
            f"blocks of the vision tower, each of which at most halves them: the least is "
            f"{least(original, len(merging), larger)} (or merge in more blocks)"
        )
    counts, left = [budget], original - budget
    for place in range(len(merging) - 1, -1, -1):
        whole = sum(weights[number] for number in merging[: place + 1])
        share = math.floor(left * weights[merging[place]] / whole + 1e-9)
        gone = min(share, counts[-1])
        left -= gone
        counts.append(counts[-1] + gone)
    counts.reverse()
    counts[0] = original
    for place, number in enumerate(merging):
        # Only binds where the earliest blocks were left with more than they can remove.
        counts[place + 1] = max(counts[place + 1], least(counts[place], 1, larger))
        result[number] = counts[place] - counts[place + 1]
    return result
