"""Pruning ends when nobody is inside the model any more."""

from __future__ import annotations

import threading
import time

import pytest

from prunus.engine import traffic as module
from prunus.engine.traffic import Traffic


def test_closing_waits_for_those_inside() -> None:
    traffic, inside, leave = Traffic(), threading.Event(), threading.Event()
    events: list[str] = []

    def visit() -> None:
        assert traffic.enter()
        inside.set()
        leave.wait(10)
        events.append("left")
        traffic.leave()

    def close() -> None:
        traffic.close()
        events.append("closed")

    visitor, closer = threading.Thread(target=visit), threading.Thread(target=close)
    visitor.start()
    inside.wait(10)
    closer.start()
    closer.join(0.2)
    assert closer.is_alive() and traffic.closing
    assert not traffic.enter()  # too late
    leave.set()
    visitor.join(10)
    closer.join(10)
    assert events == ["left", "closed"]


def test_closing_does_not_wait_for_itself_or_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that was killed inside (Ctrl-C in a layer) never leaves."""
    monkeypatch.setattr(module, "_PATIENCE", 4.0)
    traffic = Traffic()
    dead = threading.Thread(target=traffic.enter)
    dead.start()
    dead.join()
    assert traffic.enter()
    start = time.monotonic()
    traffic.close()
    assert time.monotonic() - start < 2
