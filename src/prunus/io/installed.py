"""What installed packages bring: objects that their entry points name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from prunus.errors import PrunusError, brief

_LOOKED: dict[str, tuple[str, ...]] = {}  # by group: where was looked
_TAKEN: set[tuple[str, str]] = set()  # groups and values of entry points that were taken


def take_new(group: str, take: Callable[[Any, str], object]) -> None:
    """Give each object that an entry point of ``group`` names to ``take``, with its
    ``package.module:name``: each once, and only where the search path is another than last time.

    Raises:
        PrunusError: one cannot be loaded, or ``take`` refuses it; names the package.
    """
    path = tuple(sys.path)
    if _LOOKED.get(group) == path:
        return
    for point in entry_points(group=group):
        if (group, point.value) not in _TAKEN:
            try:
                take(point.load(), point.value)
            except Exception as error:  # of a stranger's module: anything
                raise _unusable(point, error) from error
            _TAKEN.add((group, point.value))
    _LOOKED[group] = path


def _unusable(point: EntryPoint, error: Exception) -> PrunusError:
    owner = "a package" if point.dist is None else f"the package {point.dist.name}"
    return PrunusError(
        f"the entry point {point.name!r} of {point.group} ({point.value}, by {owner}) cannot be "
        f"loaded: {brief(error)}; repair or uninstall it"
    )
