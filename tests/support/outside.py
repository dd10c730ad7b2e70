"""Methods that are not in prunus: a file, and a package as pip would install it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunus.io import installed
from prunus.method.base import KNOWN

METHOD = """
from __future__ import annotations

from dataclasses import dataclass

import prunus
from prunus.method.signals import Attention


@dataclass(frozen=True)
class Seen(prunus.Method):
    name = "{name}"
    summary = "tokens that all words behind the image attend to"
    presets = {{"late": {{"layer": 3}}}}

    keep: int | float = 0.25
    layer: int = 2

    def cuts(self, depth):
        return [prunus.Cut(self.layer, (Attention(self.layer - 1, "text"),))]

    def score(self, stage, view):
        return view[Attention(self.layer - 1, "text")]
"""


def method_file(folder: Path, name: str = "seen", source: str = METHOD) -> str:
    """A file with a method; the name by which it is asked for."""
    path = folder / "their_method.py"
    path.write_text(source.format(name=name) if source is METHOD else source, encoding="utf-8")
    return f"{path}:Seen"


def package(folder: Path, module: str, source: str, entry: str = "seen = {module}:Seen") -> Path:
    """A distribution ``their-<module>`` with one module and one entry point ``prunus.methods``."""
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    facts = folder / f"their_{module}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: their-{module}\nVersion: 1.0\n")
    point = entry.format(module=module)
    (facts / "entry_points.txt").write_text(f"[prunus.methods]\n{point}\n")
    return folder


@contextmanager
def as_before() -> Iterator[None]:
    """What is learned about methods and modules inside the block is forgotten behind it."""
    known, modules = dict(KNOWN), set(sys.modules)
    looked, taken = dict(installed._LOOKED), set(installed._TAKEN)
    try:
        yield
    finally:
        KNOWN.clear()
        KNOWN.update(known)
        installed._LOOKED.clear()
        installed._LOOKED.update(looked)
        installed._TAKEN.clear()
        installed._TAKEN.update(taken)
        for name in set(sys.modules) - modules:
            if name.startswith(("prunus_file_", "their_")):
                del sys.modules[name]
