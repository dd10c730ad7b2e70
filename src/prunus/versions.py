"""The version of prunus; which versions of transformers it was tested with, and what is said about
others.

This is the one place in the package that names these; ``tests/test_versions.py`` compares it with
``pyproject.toml`` and the constraint files.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from prunus.errors import PrunusError

__version__ = "0.1.0"

#: The lowest transformers that prunus runs on, and the newest that all tests passed on.
LOWEST, NEWEST = "5.19.0", "5.24.0"


def tested() -> str:
    """The tested range in words."""
    return f"transformers {LOWEST} to {NEWEST}"


def release(text: str) -> tuple[int, ...]:
    """``"5.24.0.dev1"`` as ``(5, 24, 0)``: the numbers in front of any other part."""
    numbers = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in numbers[0].split(".")) if numbers else ()


def untested(installed: str) -> str | None:
    """One line about an ``installed`` transformers that is newer than the tested ones, or None.
    Repairs of a tested release (its third number) count as tested.

    Raises:
        PrunusError: it is older than the lowest supported one.
    """
    if release(installed) < release(LOWEST):
        raise PrunusError(
            f"transformers {installed} is installed, and prunus needs {LOWEST} or newer "
            f"(tested with {tested()}): pip install -U transformers"
        )
    if release(installed)[:2] <= release(NEWEST)[:2]:
        return None
    return (
        f"prunus was tested with {tested()}, and {installed} is installed: `prunus check --model "
        "YOUR_MODEL` (in Python: prunus.check(model, processor)) tells in about a minute whether "
        "pruning is right with it"
    )


@cache
def check_transformers() -> None:
    """Warn, once in a process, about a transformers that is newer than the tested ones.

    Raises:
        PrunusError: there is none, or it is too old; every time this is called.
    """
    try:
        installed = version("transformers")
    except PackageNotFoundError:
        raise PrunusError("transformers is not installed: pip install transformers") from None
    if line := untested(installed):
        warnings.warn(line, stacklevel=3)
