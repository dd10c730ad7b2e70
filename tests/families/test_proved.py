"""The table of what is proved (src/prunus/families/proved.json) is that of the code at hand."""

from __future__ import annotations

import pytest

from prunus.families import families, family_of
from prunus.families.proved import REFUSED, proved, runs_on
from tests.support import matrix
from tests.support.families import Kind
from tests.support.kinds import kinds

EVERY = pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
#: More than ten seconds each, or of the same family as a faster one.
SLOW = ("kimi-k2.5", "gemma4", "gemma4-large", "qwen3.5-moe", "qwen3-vl-moe", "glm-4v-moe")


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


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=kind.name, marks=pytest.mark.full if kind.name in SLOW else ())
        for kind in kinds()
    ],
)
def test_what_the_table_says_of_a_kind(kind: Kind) -> None:
    """A check of all methods on the saved model: right, or refused for the reason given there."""
    name = family_of(kind.build()[0]).name
    for shown, said in matrix.prove(kind, matrix.own_methods()).items():
        for method, word in said.items():
            there = proved()[name][shown][method]
            assert word.removeprefix(REFUSED) in there, (shown, method)
            alone = matrix.refuses(kind.name, REFUSED) in there
            refused = there.startswith(REFUSED) or alone
            assert word.startswith(REFUSED) == refused, (shown, method)
