"""Whether JSON values have the form of a type, and what is said where they have not."""

from __future__ import annotations

import copy
import sys
from typing import Any, TypedDict

import pytest

from prunus.io.forms import _misfits, misfit


class Inner(TypedDict):
    number: float
    names: list[str]


class Outer(Inner, total=False):
    maybe: dict[str, Inner | None]
    anything: Any


class Itself(TypedDict):
    inside: Itself | int | None


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


VALUES = (None, True, 0, 1.5, float("nan"), 10**400, "x", [], {}, ["a"], [[1]], {"names": [], 1: 2})


def test_what_is_found_out_first_is_what_is_told() -> None:
    """Any value in any place: nothing is said exactly where nothing is wrong."""
    places = [("number",), ("names",), ("names", 0), ("maybe",), ("maybe", "b"), ("anything",)]
    places += [("maybe", "c", "number"), ("maybe", "c", "names"), ("unknown",)]
    count = 0
    for place in places:
        for value in VALUES:
            whole = copy.deepcopy(GOOD)
            at: Any = whole
            for name in place[:-1]:
                at = at[name]
            at[place[-1]] = value
            told = next(_misfits(whole, Outer, ""), None)
            assert misfit(whole, Outer) == told, (place, value)
            count += told is None
    for kind in (int, float, str, bool, list, dict, int | float | None, dict[str, int], list[Any]):
        for value in VALUES:
            assert misfit(value, kind, "it") == next(_misfits(value, kind, "it"), None)
    assert 20 < count < len(places) * len(VALUES) - 20


def test_a_form_may_hold_itself() -> None:
    assert misfit({"inside": {"inside": {"inside": 3}}}, Itself) is None
    assert misfit({"inside": {"inside": {}}}, Itself) == "inside.inside has no 'inside'"


def test_what_is_right_costs_little() -> None:
    """A call for each value, however deep it lies: stores are megabytes of numbers."""
    value = {"a": [[float(n) for n in range(50)] for _ in range(20)]}
    calls = 0

    def note(frame: Any, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call"

    misfit(value, dict[str, list[list[float | None]]])
    sys.setprofile(note)
    try:
        misfit(value, dict[str, list[list[float | None]]])
    finally:
        sys.setprofile(None)
    assert calls < 3 * 1000
