"""The clock: rounds in turn, and every moment in one part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from prunus.bench import splits as module
from prunus.bench.clock import in_turn, quartiles, ratios
from prunus.bench.splits import PARTS, Splits


class Clock:
    """Says what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_each_moment_belongs_to_the_innermost_part(clock: Clock) -> None:
    found = Splits(torch.device("cpu"))
    found.start()
    clock.now = 1
    with found.part("model"):
        clock.now = 3
        with found.part("prefill"):
            clock.now = 6
            with found.part("choosing"):
                clock.now = 10
            clock.now = 15
        clock.now = 21
    clock.now = 28
    found.stamp()
    clock.now = 36
    with found.part("prefill"):  # of the second token: it is in no part
        clock.now = 45
    found.stamp()
    assert found.parts() == dict.fromkeys(PARTS, 0.0) | {
        "generate": 1 + 7,
        "model": 2 + 6,
        "prefill": 3 + 5,
        "choosing": 4,
    }
    assert found.stamps() == [28, 45]
    assert sum(found.parts().values()) == found.stamps()[0]


def test_a_part_that_raises_ends(clock: Clock) -> None:
    found = Splits(torch.device("cpu"))
    found.start()

    def work() -> None:
        with found.part("prefill"):
            clock.now = 2
            raise KeyError

    with pytest.raises(KeyError):
        work()
    clock.now = 5
    found.stamp()
    assert (found.parts()["prefill"], found.parts()["generate"]) == (2, 3)


def test_rounds_go_forwards_and_backwards() -> None:
    ran: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        ran.append("(")
        yield
        ran.append(")")

    def action(name: str) -> int:
        ran.append(name)
        return len(ran)

    found = in_turn(
        {"a": lambda: action("a"), "b": lambda: action("b")}, 2, 1, {"b": around}, lambda: None
    )
    assert "".join(ran) == "(b)a" + "a(b)" + "(b)a"
    assert found == {"a": [5, 12], "b": [7, 10]}  # the first round only warms up


def test_where_rounds_take_long_there_are_fewer_and_never_below_three(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("prunus.bench.clock.time.monotonic", lambda: float(next(clock)))
    for most, rounds in ((0.5, 3), (3.5, 6), (50.0, 7)):
        ran = in_turn({"a": lambda: 1}, 7, 1, {}, most=most)["a"]
        assert len(ran) == rounds, most


def test_ratios_are_of_one_round() -> None:
    """A machine that becomes ten times slower half-way changes no ratio."""
    ours, theirs = [1.0, 2.0, 30.0, 10.0], [2.0, 4.0, 40.0, 20.0]
    assert ratios(ours, theirs) == quartiles([0.5, 0.5, 0.75, 0.5]) == (0.5, 0.5, 0.5625)
