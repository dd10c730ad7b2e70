"""Whether JSON values have the form of a type, and what is said where they have not."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest

from prunus.io.forms import misfit


class Inner(TypedDict):
    number: float
    names: list[str]


class Outer(Inner, total=False):
    maybe: dict[str, Inner | None]
    anything: Any


GOOD: dict[str, Any] = {
    "number": 1,
    "names": ["a"],
    "maybe": {"b": None, "c": {"number": 0.5, "names": []}},
    "anything": [None, {}],
    "unknown": "kept",
}


def test_what_fits() -> None:
    assert misfit(GOOD, Outer) is None
    assert misfit({"number": -2.5, "names": []}, Outer) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"number": "x"}, "number is 'x', and has to be a number"),
        ({"number": True}, "number is True, and has to be a number"),
        ({"number": float("nan")}, "number is nan, and has to be a number"),
        ({"number": float("inf")}, "number is inf, and has to be a number"),
        ({"number": 10**400}, "number is a number of 1329 bits, and has to be a number"),
        ({"names": {}}, "names is {}, and has to be a list"),
        ({"names": ["a", None]}, "names[1] is None, and has to be a text"),
        ({"maybe": []}, "maybe is [], and has to be an object"),
        ({"maybe": {"b": 3}}, "maybe['b'] is 3, and has to be an object or null"),
        ({"maybe": {"b": {"number": 1}}}, "maybe['b'] has no 'names'"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(change: dict[str, Any], words: str) -> None:
    assert misfit({**GOOD, **change}, Outer) == words


def test_what_is_missing_and_what_is_something_else() -> None:
    assert misfit({"names": []}, Outer) == "it has no 'number'"
    assert misfit([], Outer, "a.json") == "a.json is [], and has to be an object"
    assert misfit(1.0, int, "n") == "n is 1.0, and has to be a whole number"
