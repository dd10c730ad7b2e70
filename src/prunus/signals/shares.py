"""How a number of tokens is divided among the parts of an image."""

from __future__ import annotations

from collections.abc import Sequence


def shares(count: int, sizes: Sequence[int], left: Sequence[int]) -> list[int]:
    """``count`` in proportion to ``sizes``, no part more than is ``left`` of it.

    What rounding down leaves goes to the largest remainders, of equal ones to the first parts; what
    a part cannot take goes to the others by the same rule.

    Args:
        count: at most ``sum(left)``.
    """
    found = [0] * len(sizes)
    while (missing := count - sum(found)) > 0:
        open_parts = [n for n, most in enumerate(left) if found[n] < most]
        total = sum(sizes[n] for n in open_parts)
        exact = {n: missing * sizes[n] / total for n in open_parts}
        more = {n: min(int(exact[n]), left[n] - found[n]) for n in open_parts}
        if not any(more.values()):
            by_remainder = sorted(open_parts, key=lambda n: (int(exact[n]) - exact[n], n))
            more = {n: int(n in by_remainder[:missing]) for n in open_parts}
        for n, own in more.items():
            found[n] += own
    return found
