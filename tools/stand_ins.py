"""Import every module of prunus where torch is not to be had, with stand-ins for what is missing.

What runs is what Python runs at import: class bodies, dataclasses, decorators, annotations that are
evaluated, the registry of methods. No tensor is ever made. tools/try_python.py calls this with
interpreters for which there is no torch.

    python tools/stand_ins.py [PACKAGE]
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ABSENT = ("torch", "transformers", "accelerate", "lmms_eval", "vllm")


class Anything(type):
    """A class that has every attribute, decorates, is called, indexed and joined with ``|``."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return anything(f"{cls.__name__}.{name}")

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if "stands_in" not in vars(cls):  # a class of prunus that has one for its base
            return super().__call__(*args, **options)
        return args[0] if len(args) == 1 and callable(args[0]) and not options else cls

    def __getitem__(cls, key: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        return object

    __ror__ = __or__


def anything(name: str) -> Any:
    """A stand-in of that name."""
    return Anything(name, (), {"stands_in": True})


class Finder(MetaPathFinder, Loader):
    """Modules of :data:`ABSENT` packages, and of those below them."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """One for each absent module."""
        is_absent = name.partition(".")[0] in ABSENT
        return ModuleSpec(name, self, is_package=True) if is_absent else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A module in which everything is found."""
        module = ModuleType(spec.name)

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return anything(f"{spec.name}.{name}")

        module.__getattr__ = attribute  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def import_all(package: str) -> tuple[int, list[str]]:
    """How many modules of a package could be imported, and a traceback for each that could not."""
    failures: list[str] = []
    top = importlib.import_module(package)
    names = [
        found.name
        for found in pkgutil.walk_packages(
            top.__path__, f"{package}.", onerror=lambda name: None
        )  # what cannot be imported fails below as well
        if not found.name.endswith("__main__")
    ]
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # whatever it is: it is shown
            failures.append(f"{name}\n{traceback.format_exc(limit=-2)}")
    return len(names) - len(failures), failures


def main(argv: Sequence[str]) -> int:
    """Import, list the methods, and return the exit code."""
    sys.path.insert(0, str(ROOT / "src"))
    sys.meta_path.insert(0, Finder())
    package = argv[0] if argv else "prunus"
    imported, failures = import_all(package)
    for failure in failures:
        print(failure)
    print(f"{imported} modules of {package} imported, {len(failures)} not")
    if package == "prunus":
        print("methods:", ", ".join(sorted(importlib.import_module("prunus").methods())))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
