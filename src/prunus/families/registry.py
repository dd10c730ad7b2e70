"""Which families there are, and which of them a model is of."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from prunus.errors import PrunusError, PrunusTypeError, brief
from prunus.families.base import Family, registered

_GROUP = "prunus.families"  # of entry points


def unwrap(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model


def families() -> dict[str, type[Family]]:
    """All supported families by name.

    Raises:
        PrunusError: a family of another package that cannot be loaded, or is none.
    """
    package = importlib.import_module("prunus.families")
    for module in pkgutil.iter_modules(package.__path__):  # a family registers itself
        importlib.import_module(f"prunus.families.{module.name}")
    _load_others()
    return {family.name: family for family in registered().values()}


@cache
def _load_others() -> None:
    """Import the families that other packages bring."""
    for entry in entry_points(group=_GROUP):
        try:
            found = entry.load()
        except Exception as error:
            raise PrunusError(
                f"the family {entry.name!r} that an installed package brings ({entry.value}) "
                f"cannot be loaded: {brief(error)}"
            ) from error
        if not (isinstance(found, type) and issubclass(found, Family)):
            raise PrunusTypeError(
                f"the entry point {entry.name!r} of {_GROUP} ({entry.value}) is no subclass of "
                "prunus.families.Family"
            )


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
    if not isinstance(getattr(top, "model", None), nn.Module):
        raise PrunusError(
            f"{type(top).__name__} is a part of a model: give the whole, whose forward takes pixel "
            "values and whose generate() is called (it may be used by its parts inside the block)"
        )
    return by_type[model_type](top)
