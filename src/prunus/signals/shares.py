"""How a number of tokens is divided among the parts of an image."""

from __future__ import annotations

from collections.abc import Sequence


def shares(count: int, sizes: Sequence[int], left: Sequence[int]) -> list[int]:
    """``count`` in proportion to ``sizes``, no part more than is ``left`` of it.

    What rounding down leaves goes to the largest remainders, of equal ones to the first parts; what
    a part cannot take goes to the others by the same rule; where only parts of size 0 have room,
    to these alike.

    Args:
        count: at most ``sum(left)``.
    """
    found, open_parts = [0] * len(sizes), [n for n, most in enumerate(left) if most > 0]
    while count and open_parts:
        total = sum(sizes[n] for n in open_parts)
        if not total:
            sizes = [1] * len(sizes)
            continue
        full = [n for n in open_parts if count * sizes[n] >= left[n] * total]
        if full:  # the others divide what these cannot take
            for n in full:
                found[n] = left[n]
            count -= sum(left[n] for n in full)
            open_parts = [n for n in open_parts if n not in full]
            continue
        for n in open_parts:
            found[n] = count * sizes[n] // total
        rest = count - sum(found[n] for n in open_parts)
        by_remainder = sorted(open_parts, key=lambda n: (-(count * sizes[n] % total), n))
        for n in by_remainder[:rest]:
            found[n] += 1
        break
    return found
