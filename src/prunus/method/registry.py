"""Which methods there are: those of prunus, of installed packages, and of files."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError, PrunusFileError, PrunusTypeError, shown, unknown
from prunus.method.base import KNOWN, Method

#: Entry points of packages that bring methods: ``name = "package.module:Class"``.
GROUP = "prunus.methods"
_FOUND: set[str] = set()  # packages and entry points that were looked at


def methods() -> dict[str, type[Method]]:
    """All known methods by name. A new file in ``prunus/pruners`` is found by itself, and so are
    the entry points ``prunus.methods`` of installed packages; classes defined elsewhere are known
    once their module is imported.

    Raises:
        PrunusError: an entry point that cannot be loaded.
    """
    if "pruners" not in _FOUND:
        package = importlib.import_module("prunus.pruners")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"prunus.pruners.{module.name}")
        _FOUND.add("pruners")
    for point in entry_points(group=GROUP):
        if point.value not in _FOUND:
            try:
                _checked(point.load(), point.value)
            except (ImportError, AttributeError) as error:
                raise PrunusError(
                    f"the entry point {point.name} = {point.value} of {GROUP} cannot be loaded "
                    f"({error}): repair or uninstall the package that brings it"
                ) from error
            _FOUND.add(point.value)
    return dict(sorted(KNOWN.items()))


def find_method(name: str) -> tuple[type[Method], dict[str, Any]]:
    """The class that ``name`` means, and the parameters that come with it: ``clse``, a preset of it
    ``clse@released``, or ``path/to/file.py:Class``.

    Raises:
        PrunusError: there is none of that name; the message lists those that are.
    """
    kind, _, preset = name.partition("@")
    if ".py:" in kind:
        cls = _from_file(kind)
    else:
        known = methods()
        if kind not in known:
            raise unknown("method", kind, [*known, "path/to/file.py:Class"])
        cls = known[kind]
    if not preset and "@" not in name:
        return cls, {}
    if preset not in cls.presets:
        there = ", ".join(f"{cls.name}@{one}" for one in cls.presets) or "none"
        raise PrunusError(f"{cls.name} has no preset {shown(preset)}: there are {there}")
    return cls, dict(cls.presets[preset])


def make_method(method: Method | str, params: dict[str, Any]) -> Method:
    """Turn a name with parameters, or an instance, into a method; see :func:`find_method`.
    Parameters go before those of a preset.

    Raises:
        PrunusError: unknown name or parameter (the message lists what exists).
        PrunusTypeError: something that is neither, or parameters beside an instance.
    """
    if not isinstance(method, str):
        return _instance(method, params)
    cls, own = find_method(method)
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(params) - fields):
        raise PrunusError(
            f"{cls.name} has no parameter {', '.join(unknown)}: it takes "
            f"{', '.join(sorted(fields))}"
        )
    return cls(**own | params)


def _instance(method: Any, params: dict[str, Any]) -> Method:
    if not isinstance(method, Method):
        raise PrunusTypeError(
            f"{shown(method)} is no method: give a name, an instance or a list of instances"
        )
    if params:
        raise PrunusTypeError(
            f"parameters {sorted(params)} were given beside an instance of "
            f"{type(method).__name__}: set them on the instance"
        )
    return method


def _from_file(name: str) -> type[Method]:
    """The class that ``path/to/file.py:Class`` names; the file is run once."""
    place, _, wanted = name.rpartition(":")
    path = Path(place).resolve()
    if not path.is_file():
        raise PrunusFileError(f"no such file: {place!r} (of the method {shown(name)})")
    module_name = f"prunus_file_{path.stem}_{abs(hash(str(path)))}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise PrunusFileError(f"{place!r} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    if not hasattr(module, wanted):
        raise PrunusError(f"{place!r} defines no {wanted!r}")
    return _checked(getattr(module, wanted), name)


def _checked(cls: Any, name: str) -> type[Method]:
    """``cls`` if it is a method that can be made.

    Raises:
        PrunusError: it is not.
    """
    complete = dataclasses.is_dataclass(cls)
    if not (inspect.isclass(cls) and issubclass(cls, Method) and hasattr(cls, "name")):
        raise PrunusError(f"{name} is no pruning method: a subclass of prunus.Method with a name")
    if not complete:
        raise PrunusError(f"{name} is no dataclass: put @dataclass(frozen=True) above it")
    found: type[Method] = cls
    return found
