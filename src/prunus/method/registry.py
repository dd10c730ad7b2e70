"""Which methods there are: those of prunus, of installed packages, and of files."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from prunus.errors import PrunusError, PrunusFileError, PrunusTypeError, shown, unknown
from prunus.io.installed import take_new
from prunus.method.base import KNOWN, Method

#: Entry points of packages that bring methods: ``name = "package.module:Class"``.
GROUP = "prunus.methods"


def methods() -> dict[str, type[Method]]:
    """All known methods by name. A new file in ``prunus/pruners`` is found by itself, and so are
    the entry points ``prunus.methods`` of installed packages; classes defined elsewhere are known
    once their module is imported.

    Raises:
        PrunusError: an entry point that cannot be used; names the package.
    """
    _load_own()
    take_new(GROUP, _checked)
    return {name: cls for name, cls in sorted(KNOWN.items()) if _is_complete(cls)}


@cache
def _load_own() -> None:
    """Import the methods of prunus, which make themselves known."""
    package = importlib.import_module("prunus.pruners")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"prunus.pruners.{module.name}")


def spelled(name: str, known: Iterable[str]) -> str:
    """``name`` as it is spelled among the ``known`` ones, where only case and hyphens differ and
    only one is so like it ("PyramidDrop", "clse_m"); else as it is."""
    there = list(known)
    like = [one for one in there if _letters(one) == _letters(name)]
    return like[0] if name not in there and len(like) == 1 else name


def _letters(name: str) -> str:
    return name.strip().casefold().replace("-", "").replace("_", "")


def unknown_method(name: str, *others: str) -> PrunusError:
    """The error for a ``name`` that no method has; ``others`` may stand in its place, too."""
    if name.endswith(".py"):
        return PrunusError(f"{name!r} is a file: name the class in it, too ({name}:MyMethod)")
    about = {known: cls.summary for known, cls in methods().items()}
    more = [*others, "path/to/file.py:Class"]
    listed = f"`prunus methods` lists them all; also {', '.join(more)}"
    return unknown("method", name, [*about, *more], about, listed)


def find_method(name: str) -> tuple[type[Method], dict[str, Any]]:
    """The class that ``name`` means, and the parameters that come with it: ``clse``, a preset of it
    ``clse@released``, or ``path/to/file.py:Class``. Case is of no account, but in names of files
    and classes.

    Raises:
        PrunusError: there is none of that name; the message says which are like it.
    """
    folder, file, rest = name.rpartition(".py:")
    kind, at, preset = rest.partition("@")
    known = methods()  # first, so that none of a file takes the name of one of these
    if file:
        cls = _from_file(f"{folder}{file}{kind}")
    else:
        kind = spelled(kind, known)
        if kind not in known:
            raise unknown_method(kind)
        cls = known[kind]
    if not at:
        return cls, {}
    preset = spelled(preset, cls.presets)
    if preset not in cls.presets:
        there = ", ".join(f"{cls.name}@{one}" for one in cls.presets) or "none"
        raise PrunusError(f"{cls.name} has no preset {shown(preset)}: there are {there}")
    return cls, dict(cls.presets[preset])


def make_method(method: Method | str, params: dict[str, Any]) -> Method:
    """Turn a name with parameters, or an instance, into a method; see :func:`find_method`.
    Parameters go before those of a preset.

    Raises:
        PrunusError: unknown name or parameter (the message says what there is).
        PrunusTypeError: something that is neither, or parameters beside an instance.
    """
    if not isinstance(method, str):
        return _instance(method, params)
    cls, own = find_method(method)
    return build(cls, own | params)


def required(cls: type[Method]) -> list[str]:
    """Parameters that have to be given, for want of a default."""
    unset = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.init and field.default is unset and field.default_factory is unset
    ]


def build(cls: type[Method], params: Mapping[str, Any]) -> Method:
    """The method ``cls`` with ``params``.

    Raises:
        PrunusError: an unknown parameter (the message lists what exists), or one missing, or all of
            those of which it needs one.
    """
    fields = {field.name for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    if strange := sorted(set(params) - fields):
        raise PrunusError(
            f"{cls.name} has no parameter {', '.join(strange)}: it takes "
            f"{', '.join(sorted(fields))}"
        )
    if missing := [name for name in required(cls) if name not in params]:
        raise PrunusError(f"{cls.name} needs {', '.join(missing)}: there is no default, give it")
    if cls.either and all(params.get(name) is None for name in cls.either):
        raise PrunusError(
            f"{cls.name} does nothing by itself: give it {' or '.join(cls.either)} "
            f"(on a command line --param {cls.either[0]}=...)"
        )
    return cls(**params)


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
    try:
        path = Path(place).resolve()
        there = path.is_file()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise PrunusFileError(f"no file can be called {shown(place)}") from error
    if not there:
        raise PrunusFileError(f"no such file: {place!r} (of the method {shown(name)})")
    loaded = [one for one in sys.modules.values() if getattr(one, "__file__", None) == str(path)]
    module = loaded[0] if loaded else _run(path)
    if not hasattr(module, wanted):
        raise PrunusError(f"{place!r} defines no {wanted!r}")
    return _checked(getattr(module, wanted), name)


def _run(path: Path) -> ModuleType:
    """The module in a file, which is nowhere on the search path. What the file raises is its own
    business; no class of it is known then."""
    name = f"prunus_file_{path.stem}_{abs(hash(str(path)))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PrunusFileError(f"{str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        for known in [one for one, cls in KNOWN.items() if cls.__module__ == name]:
            del KNOWN[known]
        raise
    return module


def _checked(cls: Any, name: str) -> type[Method]:
    """``cls`` if it is a method that can be made.

    Raises:
        PrunusError: it is not.
    """
    if not (inspect.isclass(cls) and issubclass(cls, Method) and hasattr(cls, "name")):
        raise PrunusError(f"{name} is no pruning method: a subclass of prunus.Method with a name")
    if not _is_complete(cls):
        raise PrunusError(f"{name} is no dataclass: put @dataclass(frozen=True) above it")
    found: type[Method] = cls
    return found


def _is_complete(cls: type[Method]) -> bool:
    """Whether it is a dataclass by itself, and not only by what it inherits."""
    return "__dataclass_params__" in vars(cls)
