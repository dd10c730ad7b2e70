"""JSON values in which one thing is wrong, for whoever reads what was written earlier."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

#: What is put in the place of a value; and it is taken away.
OTHERS: tuple[Any, ...] = (None, True, -7, 0.5, float("nan"), 10**400, "x", [], [[]], {"x": None})
_GONE = object()


def damaged(whole: Any) -> Iterator[tuple[str, Any]]:
    """A copy of ``whole`` in which one value after the other is gone, or is another one, and what
    that is; it is as it was before the next.

    Of the entries of a list only the first and the last are changed; of objects in lists, one.
    """
    changed = copy.deepcopy(whole)
    seen: set[tuple[Any, ...]] = set()
    for path, value in list(_paths(changed, ())):
        kind = (*("#" if isinstance(one, int) else one for one in path), type(value))
        if kind in seen:
            continue
        seen.add(kind)
        inside: Any = changed
        for step in path[:-1]:
            inside = inside[step]
        last: Any = path[-1]
        for other in (_GONE, *OTHERS):
            if type(other) is type(value) and other == value:
                continue
            if other is _GONE:
                del inside[last]
            else:
                inside[last] = copy.deepcopy(other)
            name = "gone" if other is _GONE else repr(other)[:20]
            yield f"{'.'.join(map(str, path))}: {name}", changed
            if other is _GONE and isinstance(inside, list):
                inside.insert(last, value)
            else:
                inside[last] = value


def _paths(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if path:
        yield path, value
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _paths(one, (*path, name))
    elif isinstance(value, list):
        for number in sorted({0, len(value) - 1}) if value else ():
            yield from _paths(value[number], (*path, number))
