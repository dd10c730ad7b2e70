"""Which frames of a video a model is shown: times at equal distances, and what is shown then."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prunus.errors import PrunusError, shown
from prunus.io.videos import Source

#: Frames per second, and frames at most, where nothing else is asked for.
FPS, MOST = 2.0, 64
_NEAR = 0.25  # of the usual distance of two frames: closer times are one
_FUZZ = 1e-6  # of floating point: what is less than so much of a frame is nothing


@dataclass(frozen=True)
class Sampling:
    """Which frames to take of a video.

    Attributes:
        fps: how many per second, not more than there are; default 2, or all of pictures that were
            named one by one.
        frames: instead, how many in all.
        start, end: seconds between which they are, the end itself left out; None: the video's end.
        most: frames at most with ``fps``; default 64, or all as above. Of a longer video they are
            taken at half the rate, or a quarter ..., so that they reach to its end.
        source_fps: how many frames of a source that does not say so itself belong to one second.

    Raises:
        PrunusError: numbers that make no sense, or that contradict each other.
    """

    fps: float | None = None
    frames: int | None = None
    start: float = 0.0
    end: float | None = None
    most: int | None = None
    source_fps: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("fps", self.fps), ("source-fps", self.source_fps)):
            if value is not None and not (0 < value < math.inf):
                raise PrunusError(f"--{name} {value}: give a number of frames for each second")
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and not (0 <= value < math.inf):
                raise PrunusError(f"--{name} {value}: give seconds from the video's beginning")
        if self.end is not None and self.end <= self.start:
            raise PrunusError(
                f"no time lies between --start {self.start:g} and --end {self.end:g}: give an end "
                "behind the start"
            )
        for name, value in (("frames", self.frames), ("max-frames", self.most)):
            if value is not None and value < 1:
                raise PrunusError(f"--{name} {value}: give a positive number")
        if self.frames is not None and (self.fps is not None or self.most is not None):
            other = "--fps" if self.fps is not None else "--max-frames"
            raise PrunusError(f"--frames says how many frames are taken: leave out {other}")


@dataclass(frozen=True)
class Chosen:
    """Frames to read: their ``numbers`` in the source, ascending (one that is shown for long may
    come again), for times from ``start`` on, ``fps`` of them per second."""

    numbers: tuple[int, ...]
    start: float
    fps: float


def choose(source: Source, sampling: Sampling) -> Chosen:
    """The frames of ``source`` that are shown at the times that ``sampling`` asks for.

    Raises:
        PrunusError: the video ends before the start, was cut off before the end, or has fewer
            frames than are wanted.
    """
    name, times, start = shown(source.name), source.times, sampling.start
    stop = source.length if sampling.end is None else min(sampling.end, source.length)
    if start >= source.length:
        raise PrunusError(
            f"--start {start:g}: the video {name} lasts {source.length:.2f} s; begin earlier"
        )
    if not source.whole and stop == source.length:
        raise PrunusError(
            f"the video {name} was cut off after {source.length:.1f} s: say with --end that a part "
            "before that is meant"
        )
    usual = _usual_distance(times, source.length)
    near, span = _NEAR * usual, stop - start
    first, last = _shown_at(times, np.array([start + near, max(stop - near, start + near)]))
    if sampling.frames is not None:
        there = int(last - first) + 1
        if sampling.frames > there:
            raise PrunusError(
                f"--frames {sampling.frames}: the video {name} has {there} from {start:g} to "
                f"{stop:g} s; give {there} or fewer"
            )
        count, distance = sampling.frames, span / sampling.frames
    else:
        everything = source.listed and sampling.fps is None
        fps = sampling.fps or (math.inf if everything else FPS)
        most = sampling.most or (math.inf if source.listed else MOST)
        distance = 1 / fps if 1 / fps > usual * (1 - _FUZZ) else usual
        while (count := max(1, math.ceil(span / distance - _FUZZ))) > most:
            distance *= 2
    numbers = _shown_at(times, start + distance * np.arange(count) + near)
    fps = float(f"{1 / distance:.9g}")
    return Chosen(tuple(int(number) for number in numbers), start, fps)


def _shown_at(times: np.ndarray, when: np.ndarray) -> np.ndarray:
    """The number of the frame that is shown at each time."""
    return np.maximum(np.searchsorted(times, when, side="right") - 1, 0)


def _usual_distance(times: np.ndarray, length: float) -> float:
    """Seconds from one frame to the next, leaving out pauses."""
    gaps = np.diff(times)
    if not len(gaps):
        return length
    return float(gaps[gaps <= 2 * np.median(gaps)].mean())
