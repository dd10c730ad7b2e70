"""Every file, class and function that the documents name is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import prunus
from prunus import CLSE
from prunus.tasks.sample import load_sample
from tests.support.pages import ROOT

SOURCES = Path(prunus.__file__).parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/engine.md",
    "docs/adding-a-method.md",
    "docs/families.md",
)
NAMED = re.compile(r"`((?:[a-z0-9_]+/)*[a-z0-9_]+\.py)(?:: ([A-Za-z_.0-9]+))?`")


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def home(path: str) -> Path | None:
    """The file that is meant, from the package or from the repository."""
    return next((one for base in (SOURCES, ROOT) if (one := base / path).is_file()), None)


@cache
def defined(path: Path) -> frozenset[str]:
    """Names of a module: functions, classes, values, and ``Class.member``."""
    found: set[str] = set()

    def enter(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                enter(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.Assign):
                found.update(prefix + one.id for one in node.targets if isinstance(one, ast.Name))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(prefix + node.target.id)

    enter(ast.parse(path.read_text()).body, "")
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    wrong = []
    for path, name in NAMED.findall(text_of(page)):
        if "/" not in path and not name:  # a file of the reader's, or one told of in passing
            continue
        file = home(path)
        if file is None or (name and name not in defined(file)):
            wrong.append(f"{path}: {name}" if name else path)
    assert not wrong


@pytest.mark.parametrize("heading", ["The way of `keep`", "The way of a hidden state"])
def test_every_step_of_the_ways_names_a_function(heading: str) -> None:
    section = re.search(rf"^## {heading}\n(.*?)^## ", text_of("docs/engine.md"), re.S | re.M)
    assert section
    steps = re.findall(r"^\d+\. .*?(?=^\d+\. |\Z)", section[1], flags=re.S | re.M)
    assert len(steps) >= 7
    lacking = [step for step in steps if not any(name for _, name in NAMED.findall(step))]
    assert [step for step in lacking if "see step" not in step] == []


def test_the_way_of_keep_tells_the_numbers() -> None:
    model, processor = prunus.load("tiny-llava")
    image, questions = load_sample()
    prompt = f"USER: <image>\n{questions[0].text} ASSISTANT:"
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with prunus.prune(model, CLSE(keep=64)) as run:
        model(**inputs, logits_to_keep=1)
    tokens = run.report()["tokens"]
    assert (tokens["original"], tokens["nominal"], tokens["kept"]) == (576, 64, 64)
    assert len(tokens["per_layer"]) == 12
    assert "(576 + 11 * 64) / 12 = 106.7" in text_of("docs/engine.md")
    assert (
        tokens["average"] == pytest.approx((576 + 11 * 64) / 12) == pytest.approx(106.7, abs=0.05)
    )
