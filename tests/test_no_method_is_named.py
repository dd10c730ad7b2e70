"""Generic rooms know methods by the registry alone: what is special stands in a method's file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import prunus
from prunus import methods
from prunus.inference.named import presets_of

SOURCES = Path(prunus.__file__).parent
ROOMS = ("cli", "cost", "evaluate", "inference", "io", "results", "tasks", "viz")
GENERIC = sorted(
    [path for room in ROOMS for path in (SOURCES / room).rglob("*.py")]
    + [SOURCES / "calibrate" / name for name in ("__init__.py", "setup.py", "threshold.py")]
    + list((SOURCES / "checking").rglob("*.py"))
)

#: Fixed replays a choice that was made elsewhere: a tool, of the ground truth and of comparisons.
REPLAYS = {"evaluate/cells.py", "checking/__init__.py", "checking/measure.py"}

#: Files that may say a method's name: as an example in a default, as a control that draws lots or
#: a lattice, because the command trains that one, or to make it act in a check.
SAY = {
    "cli/run.py": {"clse"},
    "cli/batch.py": {"clse"},
    "cli/demo.py": {"clse"},
    "cli/serve_transformers.py": {"clse"},
    "cli/train.py": {"one-shot"},
    "cli/web.py": {"clse", "divprune"},
    "checking/trials.py": {
        *("clse", "evoprune", "fixed", "knockout", "random", "stepwise", "visipruner"),
        # At layers that have attention:
        *("fastv", "pyramiddrop", "sparsevlm", "sparsevlm-plus", "vscan", "duet"),
    },
    "evaluate/properties.py": {"random", "uniform"},
    "evaluate/pictures.py": {"random", "uniform"},
}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{one.name}" for one in node.names)


@pytest.mark.parametrize("path", GENERIC, ids=lambda path: str(path.relative_to(SOURCES)))
def test_a_generic_file_imports_and_names_no_method(path: Path) -> None:
    name = path.relative_to(SOURCES).as_posix()
    tree = ast.parse(path.read_text("utf-8"))
    found = {one for one in imports(tree) if one.startswith("prunus.pruners")}
    assert found <= ({"prunus.pruners.fixed.Fixed"} if name in REPLAYS else set())
    known = set(methods()) - {"prunus"}  # which is the package's own name as well
    known |= {
        f"{one}{sign}{preset}"
        for one, kind in methods().items()
        for preset in presets_of(kind)
        for sign in "@-"
    }
    said = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert said & known <= SAY.get(name, set())


def test_the_exceptions_are_still_needed() -> None:
    for name, words in SAY.items():
        text = (SOURCES / name).read_text("utf-8")
        assert all(f'"{word}"' in text for word in words), name
    for name in REPLAYS:
        assert "prunus.pruners.fixed" in (SOURCES / name).read_text("utf-8"), name
