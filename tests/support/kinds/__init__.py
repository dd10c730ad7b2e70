"""Every kind of model that is loaded from disk with its real processor, a file for each family."""

from __future__ import annotations

import importlib
import pkgutil

from tests.support import families
from tests.support.families import Kind


def kinds() -> list[Kind]:
    """Those of tests/support/families.py and of the modules in here, by name."""
    modules = [families]
    for module in pkgutil.iter_modules(__path__):
        modules.append(importlib.import_module(f"{__name__}.{module.name}"))
    found = [value for one in modules for value in vars(one).values() if isinstance(value, Kind)]
    return sorted({kind.name: kind for kind in found}.values(), key=lambda kind: kind.name)
