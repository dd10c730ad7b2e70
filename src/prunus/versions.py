"""The version of prunus; which versions of transformers it was tested with, what is said about
others, and what pip is told so that it installs nothing that does not fit.

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


def constraints() -> dict[str, str]:
    """By package what pip is held to (as in ``{"torch": "==2.13.0+cpu"}``) so that it neither
    replaces the torch that is here nor takes a torchvision of another build beside it, which would
    stop every model, nor a transformers that was not tested. Nothing is imported: it works where
    torchvision is broken.

    torchvision's numbers are torch's, 0.15 behind 2.0, and are told with the same build behind the
    plus; of a torch that is no release of these, it is left out.

    Raises:
        PrunusError: torch is not installed.
    """
    try:
        torch = version("torch")
    except PackageNotFoundError:
        raise PrunusError(
            "torch is not installed: install the build that you want (`pip install torch`), then "
            "ask again"
        ) from None
    first, second = release(NEWEST)[:2]
    held = {"torch": f"=={torch}", "transformers": f">={LOWEST},<{first}.{second + 1}"}
    if beside := torchvision_of(torch):
        held["torchvision"] = f"=={beside}"
    return held


def torchvision_of(torch: str) -> str | None:
    """The torchvision of the build of ``torch`` (its version, as pip has it), or None where it is
    no release whose number is known."""
    found = re.fullmatch(r"2\.(\d+)\.(\d+)(\+[a-z0-9.]+)?", torch)
    if found is None or int(found[1]) < 6:  # older ones are too old for prunus
        return None
    return f"0.{int(found[1]) + 15}.{found[2]}{found[3] or ''}"


def foreign_torchvision() -> str | None:
    """The installed torchvision, if it is of another release or build than torch is."""
    try:
        found, wanted = version("torchvision"), torchvision_of(version("torch"))
    except PackageNotFoundError:
        return None
    return None if wanted in (None, found) else found
