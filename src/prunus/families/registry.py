"""Which families there are, and which of them a model is of."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

from torch import nn

from prunus.errors import PrunusError, PrunusTypeError
from prunus.families.base import Family, registered
from prunus.io.installed import take_new

#: Entry points of packages that bring families: ``name = "package.module:Class"``, or a module.
GROUP = "prunus.families"


def unwrap(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model


def families() -> dict[str, type[Family]]:
    """All supported families by name.

    Raises:
        PrunusError: a family of another package that cannot be loaded, or is none.
    """
    _load_own()
    take_new(GROUP, _check_brought)
    return {family.name: family for family in registered().values()}


@cache
def _load_own() -> None:
    """Import the families of prunus, which register themselves."""
    package = importlib.import_module("prunus.families")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"prunus.families.{module.name}")


def _check_brought(found: Any, name: str) -> None:
    """Raise PrunusError unless ``found`` is a family, or a module that defines one."""
    known = registered().values()
    if isinstance(found, ModuleType):
        if not any(family.__module__ == found.__name__ for family in known):
            raise PrunusError(f"{name} defines no family: a subclass of Family with model_types")
    elif not (isinstance(found, type) and issubclass(found, Family)):
        raise PrunusTypeError(f"{name} is no subclass of prunus.families.Family")
    elif found not in known:
        raise PrunusError(f"{name} has no model_types of its own")


def model_types() -> dict[str, type[Family]]:
    """All supported families by ``config.model_type``."""
    families()
    return registered()


def family_of(model: nn.Module) -> Family:
    """The adapter for ``model``.

    Raises:
        PrunusTypeError: ``model`` is no torch module.
        PrunusError: no family supports it; the message lists those that are.
    """
    if not isinstance(model, nn.Module):
        raise PrunusTypeError(f"expected a transformers model, got {type(model).__name__}")
    known, by_type = families(), model_types()
    top = unwrap(model)
    model_type = getattr(getattr(top, "config", None), "model_type", None)
    if model_type not in by_type:
        raise PrunusError(
            f"unsupported model family {model_type or type(top).__name__!r}: prunus supports "
            + ", ".join(f"{name} ({cls.summary})" for name, cls in known.items())
        )
    whole = isinstance(getattr(top, "model", None), nn.Module) or hasattr(top, "generate")
    if not whole:
        raise PrunusError(
            f"{type(top).__name__} is a part of a model: give the whole, whose forward takes pixel "
            "values and whose generate() is called (it may be used by its parts inside the block)"
        )
    return by_type[model_type].of(top)
