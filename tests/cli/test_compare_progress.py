"""How far a comparison is, where there is no terminal."""

import io

import pytest
from rich.console import Console

from prunus.cli.compare_progress import Lines
from prunus.compare.asking import lasting


class Clock:
    """Says what time it is made to be."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_line_now_and_then_with_what_is_left() -> None:
    written, clock = io.StringIO(), Clock()
    lines = Lines(Console(file=written, width=80), clock)
    lines.stage("answers", 3000, known=1000)
    for _ in range(100):  # each second ten answers
        clock.now += 1
        lines.step(10)
    assert written.getvalue().splitlines() == [
        "answers: 1,000 of 4,000 were there already, 3,000 are to be given",
        "answers: 100 of 3,000 (3%), about 5 min left",
        "answers: 700 of 3,000 (23%), about 4 min left",
    ]
    assert "\r" not in written.getvalue()


def test_a_new_run_says_how_much_there_is() -> None:
    written = io.StringIO()
    lines = Lines(Console(file=written, width=80), Clock())
    lines.stage("reading", 2)
    lines.stage("answers", 1200)
    lines.step(1200)
    assert written.getvalue() == "1,200 answers are to be given\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (100, "2 min"), (5000, "83 min"), (12000, "3 h 20 min")],
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert lasting(seconds) == text
