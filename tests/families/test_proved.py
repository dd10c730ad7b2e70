"""The table of what is proved (src/prunus/families/proved.json) is that of the code at hand."""

from __future__ import annotations

import pytest

from prunus.families import families, family_of
from prunus.families.proved import REFUSED, proved, runs_on
from tests.support import matrix
from tests.support.families import Kind
from tests.support.kinds import kinds

EVERY = pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)


def test_every_method_was_tried_on_every_family() -> None:
    own = {name for name, cls in families().items() if cls.__module__.startswith("prunus.")}
    assert set(proved()) == own, "run python -m tests.support.matrix"
    for family, inputs in proved().items():
        for shown, said in inputs.items():
            assert sorted(said) == sorted(matrix.own_methods()), (family, shown)


@EVERY
def test_what_a_family_takes(kind: Kind) -> None:
    """Images, and videos where a kind of it takes them."""
    inputs = proved()[family_of(kind.build()[0]).name]
    assert "image" in inputs and ("video" in inputs or not kind.video)


def test_the_page_says_what_the_table_says() -> None:
    assert matrix.PAGE.read_text("utf-8") == matrix.page(proved()), (
        "run python -m tests.support.matrix --page"
    )


def test_runs_on() -> None:
    assert runs_on("llava", "clse") is True
    assert runs_on("llava-next", "evoprune") is False
    assert runs_on("llava", "of another package") is None
    assert runs_on("of another package", "clse") is None


def refusals(kind: Kind) -> dict[str, str]:
    """Of one kind: the methods that it refuses on images, and why."""
    said = proved()[family_of(kind.build()[0]).name]["image"]
    own = matrix.refuses(kind.name, REFUSED)
    found = {name: word for name, word in said.items() if word.startswith(REFUSED)}
    for name, word in said.items():
        found |= {name: REFUSED + word.split(own)[1]} if own in word else {}
    return found


@EVERY
def test_what_is_refused_is_refused_for_that_reason(kind: Kind) -> None:
    given = refusals(kind)
    if given:
        found = matrix.prove(kind, sorted(given), ("image",))["image"]
        for name, word in found.items():
            assert word.startswith(REFUSED) and word.removeprefix(REFUSED) in given[name], name


@pytest.mark.full
@EVERY
def test_the_whole_table(kind: Kind) -> None:
    name = family_of(kind.build()[0]).name
    for shown, said in matrix.prove(kind, matrix.own_methods()).items():
        for method, word in said.items():
            there = proved()[name][shown][method]
            assert there == word or word in there.split("; ") or not word, (shown, method)
            assert word.startswith(REFUSED) or not there.startswith(REFUSED), (shown, method)
