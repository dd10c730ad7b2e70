"""Typed parameters from text."""

from dataclasses import dataclass
from typing import Any, Literal, Union

import pytest

from prunus.cli.errors import is_refusal
from prunus.errors import PrunusError
from prunus.inference.params import convert, describe, parse_keep, parse_params
from prunus.method import Method


@dataclass(frozen=True)
class Sample(Method):  # no name: not registered
    keep: int | float = 0.5
    count: int = 3
    mode: Literal["a", "b"] | None = None


Sample.name = "sample"  # set afterwards: a name in the class body would register it


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("3", int | float, 3),
        ("0.5", int | float, 0.5),
        ("1e-3", float, 1e-3),
        ("none", int | None, None),
        ("7", int | None, 7),
        ("true", bool, True),
        ("No", bool, False),
        ("none", bool | None, None),
        ("b", Literal["a", "b"], "b"),
        ("2", Literal[1, 2], 2),
        ("1,11,21", tuple[int, ...] | None, (1, 11, 21)),
        ("4", Union[tuple[int, ...], None], (4,)),  # noqa: UP007 - old spelling is met, too
        ("word", str, "word"),
        ("none", str | None, None),
        ("[[1, 2], [3]]", Any, [[1, 2], [3]]),
        ("plain text", Any, "plain text"),
    ],
)
def test_convert(text: str, hint: Any, value: Any) -> None:
    found = convert("x", text, hint)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("1.5", int), ("x", float), ("1", bool), ("c", Literal["a", "b"]), ("1,x", tuple[int, ...])],
)
def test_what_does_not_fit_is_refused(text: str, hint: Any) -> None:
    with pytest.raises(PrunusError, match="expected"):
        convert("x", text, hint)


def test_types_in_words() -> None:
    assert describe(int | None) == "none | int"
    assert describe(tuple[int, ...]) == "int,int,..."
    assert describe(Literal["a", "b"]) == "a | b"


def test_keep_from_text() -> None:
    assert parse_keep("64") == 64 and type(parse_keep("64")) is int
    assert parse_keep("1") == 1 and type(parse_keep("1")) is int
    assert parse_keep("1.0") == 1.0 and type(parse_keep("1.0")) is float


def test_parameters_of_a_method() -> None:
    assert parse_params(Sample, ["count=5", "mode=b", "keep=64"]) == {
        "count": 5,
        "mode": "b",
        "keep": 64,
    }
    with pytest.raises(PrunusError, match="there are keep, count, mode"):
        parse_params(Sample, ["other=5"])


def _catch(action: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any of them
        action()
    return caught.value


def test_only_what_prunus_raises_on_purpose_is_a_refusal() -> None:
    assert is_refusal(_catch(lambda: parse_keep("x")))
    assert not is_refusal(_catch(lambda: int("x")))
    # raised by the interpreter inside prunus' code: a number cannot be iterated
    assert not is_refusal(_catch(lambda: parse_params(Sample, 3)))  # type: ignore[arg-type]
    assert not is_refusal(_catch(lambda: [][0]))
