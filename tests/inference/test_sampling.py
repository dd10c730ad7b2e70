"""Which frames are taken, and for which times: against a literal reading on a line of time."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prunus.errors import PrunusError
from prunus.inference.sampling import Chosen, Sampling, choose


def source(times: Any, length: float, listed: bool = False) -> Any:
    return SimpleNamespace(
        name="a.mp4",
        times=np.asarray(times, dtype=np.float64),
        length=length,
        listed=listed,
        whole=True,
    )


def steady(count: int, rate: float, listed: bool = False) -> Any:
    return source(np.arange(count) / rate, count / rate, listed)


def literal(times: Any, chosen: Chosen) -> list[int]:
    """For each moment the last frame that is shown by then, with the slack of a quarter of the
    least distance of two frames."""
    slack = min(np.diff(times)) / 4
    moments = [chosen.start + number / chosen.fps for number in range(len(chosen.numbers))]
    return [max(n for n, time in enumerate(times) if time <= when + slack) for when in moments]


@pytest.mark.parametrize("rate", [1.0, 10.0, 24.0, 30000 / 1001, 59.94, 240.0])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fps": 1.0},
        {"fps": 0.3},
        {"fps": 500.0},
        {"fps": 7.0, "start": 1.25},
        {"frames": 3},
        {"frames": 7, "start": 0.5, "end": 8.75},
        {"fps": 5.0, "most": 9},
        {"start": 3.0, "end": 3.2},
        {"end": 400.0},
    ],
)
def test_steady_videos(rate: float, options: dict[str, Any]) -> None:
    film, sampling = steady(round(10 * rate), rate), Sampling(**options)
    end = min(film.length, sampling.end or math.inf)
    chosen = choose(film, sampling)
    numbers = chosen.numbers
    assert list(numbers) == literal(film.times, chosen)
    assert len(set(numbers)) == len(numbers) and sorted(numbers) == list(numbers)
    assert chosen.start == sampling.start
    span = end - sampling.start
    last = chosen.start + (len(numbers) - 1) / chosen.fps
    assert last < end and last + 1 / chosen.fps > end - 1e-6  # up to the end, and not behind it
    if sampling.frames:
        assert len(numbers) == sampling.frames
        assert chosen.fps == pytest.approx(sampling.frames / span)
        return
    wanted = min(sampling.fps or 2.0, rate)
    assert len(numbers) <= (sampling.most or 64)
    halved = math.log2(wanted / chosen.fps)  # never more often than it has to be
    assert halved == pytest.approx(round(halved), abs=1e-6) and round(halved) >= 0
    if round(halved):
        assert span * 2 * chosen.fps > (sampling.most or 64)


def test_rates_are_exactly_those_that_were_asked_for() -> None:
    for rate in (10.0, 30.0, 30000 / 1001, 24.0):
        for fps in (1.0, 2.0, 3.0, 0.1):
            assert choose(steady(200, rate), Sampling(fps=fps, most=1000)).fps == fps
    assert choose(steady(9, 3.0, listed=True), Sampling()).fps == 3.0


def test_time_stamps_in_milliseconds_count_as_even() -> None:
    times = np.round(np.arange(240) / 24, 3)  # what a .mkv holds of 24 frames per second
    chosen = choose(source(times, 10.0), Sampling(fps=24.0, most=1000))
    assert list(chosen.numbers) == list(range(240))
    assert chosen.fps == pytest.approx(24, rel=1e-3)


def test_what_is_shown_for_long_is_taken_again() -> None:
    """A recording of a screen: the model is told of equal distances, and sees them."""
    times = [0.0, 0.1, 0.2, 3.0, 3.1, 8.0]
    chosen = choose(source(times, 9.0), Sampling(fps=1.0))
    assert chosen == Chosen((0, 2, 2, 3, 4, 4, 4, 4, 5), 0.0, 1.0)
    assert choose(source(times, 9.0), Sampling(frames=3)).numbers == (0, 3, 4)
    fast = choose(source(times, 9.0), Sampling(fps=99.0, most=1000))
    assert fast.fps == pytest.approx(10) and len(fast.numbers) == 90


def test_listed_pictures_are_all_taken_unless_told_otherwise() -> None:
    film = steady(100, 5.0, listed=True)
    assert choose(film, Sampling()) == Chosen(tuple(range(100)), 0.0, 5.0)
    assert choose(film, Sampling(fps=1.0)).numbers == tuple(range(0, 100, 5))
    assert len(choose(film, Sampling(most=64)).numbers) == 50
    assert choose(film, Sampling(start=2.0, end=3.0)).numbers == tuple(range(10, 15))
    assert len(choose(steady(100, 5.0), Sampling()).numbers) == 40  # a folder: 2 per second


def test_a_single_frame() -> None:
    still = source([0.0], 1.0, listed=True)
    for sampling in (Sampling(), Sampling(fps=1.0), Sampling(frames=1), Sampling(most=1)):
        assert choose(still, sampling) == Chosen((0,), 0.0, 1.0)


def test_of_what_was_cut_off_a_part_is_asked_for() -> None:
    film = steady(100, 10.0)
    film.whole = False
    assert choose(film, Sampling(end=9.0)) == choose(steady(100, 10.0), Sampling(end=9.0))
    for end in (None, 10.0, 11.0):
        with pytest.raises(PrunusError, match=r"'a.mp4' was cut off after 10\.0 s: say with --end"):
            choose(film, Sampling(end=end))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": 10.0}, "--start 10: the video 'a.mp4' lasts 10.00 s"),
        ({"start": 4.0, "end": 4.0}, "no time lies between --start 4 and --end 4"),
        ({"frames": 101}, "has 100 from 0 to 10 s; give 100 or fewer"),
        ({"frames": 11, "start": 9.0}, "has 10 from 9 to 10 s"),
        ({"frames": 4, "start": 1.0, "end": 1.3}, "has 3 from 1 to 1.3 s"),
        ({"frames": 3, "fps": 2.0}, "leave out --fps"),
        ({"frames": 3, "most": 8}, "leave out --max-frames"),
        ({"frames": 0}, "--frames 0"),
        ({"most": 0}, "--max-frames 0"),
        ({"fps": math.nan}, "--fps nan"),
        ({"fps": 0.0}, "--fps 0"),
        ({"source_fps": math.inf}, "--source-fps inf"),
        ({"start": math.nan}, "--start nan"),
        ({"start": -1.0}, "--start -1"),
        ({"end": math.nan}, "--end nan"),
    ],
)
def test_refusals(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PrunusError) as refusal:
        choose(steady(100, 10.0), Sampling(**options))
    assert words in str(refusal.value)
