"""Who imports whom: prints the rooms of the package, and fails where an import goes upwards.

A room is a package right below ``prunus`` (with all of its modules) or a module there. Every import
counts, those inside functions and under TYPE_CHECKING too: they are what a reader follows. Run as
``python tools/imports.py`` from the root of the repository; ``make lint`` does.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "prunus"

#: Every room from the bottom up: each may import those before it, and none behind it.
ORDER = (
    "errors",
    "versions",
    "grid",
    "io",
    "signals",  # tensor arithmetic
    "families",  # models
    "method",  # what a method says
    "results",  # what a run leaves behind
    "cost",
    "companion",  # a model beside the model
    "selector",  # the learned selector
    "pruners",  # the methods
    "sharing",  # of what was trained or measured
    "engine",
    "run",  # prunus.prune
    "tasks",  # what is asked
    "inference",  # from a question to an answer
    "builtin",
    "loading",
    "viz",
    "evaluate",
    "recipes",  # how the built-in models were trained
    "checking",
    "analyse",
    "train",  # of the selector
    "calibrate",
    "__init__",  # the public names
    "bench",  # the clock
    "compare",  # many methods side by side
    "tune",  # one method for one's own questions
    "lmms",  # benchmarks of lmms-eval
    "reproduce",  # tables of papers, measured again
    "serving",  # servers of others
    "vllm",  # the plug-in
    "batch",  # many rows, many workers
    "web",  # a page to try
    "cli",
    "__main__",
)

#: A package of fewer lines belongs into a neighbour.
FEWEST_LINES = 25

Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class House:
    """Imports of ``modules`` among themselves, and for each room its ``lines``; names are without
    the package's own, whose root is ``__init__``."""

    modules: Graph
    lines: Mapping[str, int]
    packages: frozenset[str]

    @property
    def rooms(self) -> Graph:
        """Imports from room to room."""
        found: dict[str, set[str]] = {room: set() for room in self.lines}
        for module, imported in self.modules.items():
            found[room_of(module)] |= {room_of(other) for other in imported} - {room_of(module)}
        return found


def room_of(module: str) -> str:
    """``engine.tower.stage`` is in ``engine``."""
    return module.partition(".")[0]


def read(package: Path) -> House:
    """The house in the folder ``package``."""
    files = {_name(path.relative_to(package)): path for path in sorted(package.rglob("*.py"))}
    modules, lines = {}, dict.fromkeys(map(room_of, files), 0)
    for name, path in files.items():
        text = path.read_text("utf-8")
        lines[room_of(name)] += len(text.splitlines())
        here = path.relative_to(package.parent).with_suffix("").parts
        modules[name] = {
            found
            for imported in _imports(ast.parse(text), here)
            if (found := _known(imported, package.name, files)) and found != name
        }
    packages = frozenset(room for room in lines if (package / room).is_dir())
    return House(modules, lines, packages)


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)


def _imports(tree: ast.AST, here: Sequence[str]) -> Iterator[str]:
    """Full dotted names of what the file ``here`` imports, as deep as they go."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{one.name}" for one in node.names)


def _known(imported: str, package: str, files: Mapping[str, Path]) -> str | None:
    """The module that a dotted name leads to; None where it is not of the package."""
    root, *parts = imported.split(".")
    if root != package:
        return None
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in files:
            return name
    return "__init__"


def circles(graph: Graph) -> list[list[str]]:
    """Groups of two or more that import each other, directly or not (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        path.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in path:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = path[path.index(node) :]
            del path[path.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def faults(house: House, order: Sequence[str] = ORDER) -> list[str]:
    """What is wrong with ``house``, a line each; nothing if all is well."""
    found = [f"modules import each other: {', '.join(c)}" for c in circles(house.modules)]
    found += [f"rooms import each other: {', '.join(c)}" for c in circles(house.rooms)]
    found += [f"room {room} has no place in ORDER" for room in house.lines if room not in order]
    found += [f"ORDER names {room}, which is gone" for room in order if room not in house.lines]
    place = {room: number for number, room in enumerate(order)}
    for module, imported in sorted(house.modules.items()):
        own = place.get(room_of(module), -1)
        found += [
            f"{module} imports {other}, which is above it"
            for other in sorted(imported)
            if own >= 0 and place.get(room_of(other), -1) > own
        ]
    found += [
        f"room {room} has {house.lines[room]} lines: fold it into a neighbour"
        for room in sorted(house.packages)
        if house.lines[room] < FEWEST_LINES
    ]
    return found


def main() -> int:
    """Print the graph, and what is wrong with it."""
    house = read(PACKAGE)
    for room in reversed([room for room in ORDER if room in house.lines]):
        below = [other for other in ORDER if other in house.rooms[room]]
        print(f"{room:<11}{house.lines[room]:>6} lines  {' '.join(below)}")
    wrong = faults(house)
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
