"""Files that repeat each other's versions agree, and the package carries its data."""

import re
from pathlib import Path

import pytest

from tests.support.packages import constraints, dependencies

ROOT = Path(__file__).resolve().parents[2]


def test_the_lowest_transformers_is_the_one_that_is_tested() -> None:
    lowest = constraints("constraints-lowest.txt")["transformers"].removesuffix(".0")
    assert dependencies()["transformers"] in (lowest, f"{lowest}.0")


def test_every_core_dependency_is_pinned() -> None:
    pinned = constraints("constraints.txt")
    assert set(dependencies()) <= set(pinned)
    assert set(dependencies()) == {
        "torch",
        "transformers",
        "numpy",
        "pillow",
        "typer",
        "rich",
        "safetensors",
        "matplotlib",
    }


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run"])
def test_no_registry_and_no_machine_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|pypi|/(root|work|home)/", text)


def test_weights_are_not_ignored_by_git() -> None:
    patterns = (ROOT / ".gitignore").read_text().splitlines()
    assert not {"*.safetensors", "*.npz", "*.png", "*.json", "data/", "weights/"} & set(patterns)
