"""Which layers an analysis visits: each of a shallow model, evenly chosen ones of a deep one."""

from __future__ import annotations

from prunus.errors import PrunusError

#: A setting per layer and curve is what takes time.
MOST = 16


def visited(first: int, depth: int, most: int = MOST) -> list[int]:
    """Ascending layers from ``first`` to ``depth - 1``, both ends among them, at most ``most``.

    Raises:
        PrunusError: there is no such layer, or ``most`` is below 2.
    """
    if not 0 <= first < depth or most < 2:
        raise PrunusError(f"no layers to visit from {first} on in {depth}, at most {most}")
    count = depth - first
    if count <= most:
        return list(range(first, depth))
    return [first + place * (count - 1) // (most - 1) for place in range(most)]
