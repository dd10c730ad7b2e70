"""Video files, read by PyAV: packets say when frames are shown, and few frames are decoded."""

from __future__ import annotations

import bisect
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from prunus.errors import PrunusError, PrunusFileError, brief, shown
from prunus.io.videos.source import even_times

#: libavformat's AVFMT_TS_DISCONT: what such a container (MPEG-PS, MPEG-TS) has no time for is
#: counted from the last one that it has, and from another one after a jump.
_GUESSED = 0x0200


#: Units of a container's duration in a second; and how many seconds it may be from what is there.
_MICROSECONDS, _SLACK = 1_000_000, 1.0


class VideoFile:
    """The first video in the file ``path``; see :class:`Source`.

    Times come from the packets, which are read without being decoded; then decoding begins at the
    key frame before a frame that is wanted. So neither memory nor, where key frames are many, the
    time for decoding depends on how long the video is. Frames are turned as the file says; pixels
    that are no squares are left as they are stored. A recording that begins between two key frames
    begins at the second one: nothing can be decoded before.

    Args:
        path: the file.
        rate: frames per second, for files that do not say when frames are shown.

    Raises:
        PrunusError: PyAV is not installed.
        PrunusFileError: there is no such file, it is empty or cannot be read, it has no video or no
            frames in it, or it does not say when they are shown and there is no ``rate``.
    """

    listed = False

    def __init__(self, path: Path, rate: float | None = None) -> None:
        self.name = str(path)
        if not os.path.isfile(path):
            raise PrunusFileError(f"no such video file: {shown(self.name)}")
        if not os.path.getsize(path):
            raise PrunusFileError(f"the video {shown(self.name)} is empty (0 bytes)")
        self._path = path
        found = self._scan()
        if not found.count:
            raise PrunusFileError(f"the video {shown(self.name)} has no frames")
        self.whole = found.whole
        self.timed = len(found.stamps) == found.count
        self._keys = array("q", sorted(found.keys))
        if self.timed:
            stamps = np.unique(np.asarray(found.stamps, dtype=np.int64))
            self._stamps = stamps[stamps >= self._keys[0]] if self._keys else stamps
            self.times = (self._stamps - self._stamps[0]) * found.unit
            gap = float(np.median(np.diff(self._stamps))) if len(self._stamps) > 1 else 0
            last = found.last[1] or gap or 1 / found.unit
            self.length = (int(self._stamps[-1] - self._stamps[0]) + last) * found.unit
        else:
            self.times = even_times(found.count, rate, shown(self.name))
            self.length = found.count / (rate or 1.0)

    def _scan(self) -> _Packets:
        with self._opened() as (container, stream):
            found, reached, broken = _Packets(float(stream.time_base)), 0.0, False
            for packet in container.demux():
                if not packet.size:  # the end
                    continue
                if packet.pts is not None:
                    end = packet.pts + (packet.duration or 0)
                    reached = max(reached, float(end * packet.time_base))
                if packet.stream is stream:
                    broken = packet.is_corrupt
                    if not broken and not packet.is_discard:  # what an edit list cuts away
                        found.add(packet)
            # what a header says of the end, if it is not itself reckoned from where the file ends
            said = 0.0 if stream.duration else (container.duration or 0) / _MICROSECONDS
            found.whole = not broken and reached > said - _SLACK
        return found

    def read(self, wanted: Sequence[int]) -> Iterator[Image.Image]:
        with self._opened() as (container, stream):
            found = (self._by_time if self.timed else self._by_count)(container, stream, wanted)
            for number, frame in zip(wanted, found, strict=True):
                if not frame.sound:
                    raise PrunusFileError(
                        f"the video {shown(self.name)} is damaged at {self.times[number]:.2f} s: "
                        "take a part of it without that (--start, --end)"
                    )
                yield _upright(frame.decoded)

    def _by_count(self, container: Any, stream: Any, wanted: Sequence[int]) -> Iterator[_Frame]:
        frames = enumerate(_frames(container, stream))
        for target in wanted:
            frame = next((frame for number, frame in frames if number == target), None)
            if frame is None:
                raise self._ended(target)
            yield frame

    def _by_time(
        self, container: Any, stream: Any, wanted: Sequence[int], jumps: bool = True
    ) -> Iterator[_Frame]:
        """The first frame at or behind each time that is wanted; key frames are jumped to where
        that saves decoding (``jumps``)."""
        frames, frame = _frames(container, stream), None
        jumps = jumps and not container.format.flags & _GUESSED
        at = self._keys[0] if self._keys else 0
        for place, number in enumerate(wanted):
            target = int(self._stamps[number])
            key = self._key_before(target)
            if jumps and key is not None and key > at:
                container.seek(key, stream=stream)
                frames = _frames(container, stream)
                frame = _stamped(frames)
                if frame is None or frame.pts > target or not self._known(frame.pts):
                    # some files know only roughly where it is
                    with self._opened() as again:
                        yield from self._by_time(*again, wanted[place:], jumps=False)
                    return
            while frame is None or frame.pts < target:
                frame = _stamped(frames)
                if frame is None:
                    raise self._ended(number)
            at = frame.pts
            yield frame

    def _key_before(self, target: int) -> int | None:
        place = bisect.bisect_right(self._keys, target)
        return self._keys[place - 1] if place else None

    def _known(self, stamp: int) -> bool:
        place = int(np.searchsorted(self._stamps, stamp))
        return place < len(self._stamps) and int(self._stamps[place]) == stamp

    def _ended(self, number: int) -> PrunusFileError:
        return PrunusFileError(
            f"the video {shown(self.name)} ends before the frame that it promises at "
            f"{self.times[number]:.2f} s: it may have been cut off; take frames before that (--end)"
        )

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The file's container and its video stream."""
        try:
            import av
        except ImportError as error:
            raise PrunusError(
                "reading a video file needs PyAV: pip install av, or give its frames as image files"
            ) from error
        try:
            with av.open(str(self._path)) as container:
                if not container.streams.video:
                    raise PrunusFileError(f"{shown(self.name)} has no video in it")
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                yield container, stream
        except (av.InvalidDataError, av.EOFError) as error:
            raise PrunusFileError(
                f"cannot read the video {shown(self.name)}: it is cut off, damaged or no video"
            ) from error
        except av.FFmpegError as error:
            raise PrunusFileError(
                f"cannot read the video {shown(self.name)}: {brief(error)}"
            ) from error


@dataclass
class _Packets:
    """What the packets of a file say of its frames.

    Attributes:
        unit: seconds of a unit of time stamps.
        stamps: of frames, in the order of the file; of as many as have one.
        keys: those of key frames.
        last: the greatest stamp, and how long its frame is shown (0: unknown).
        count: of frames.
        whole: whether the file ends where it should.
    """

    unit: float
    stamps: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("q"))
    last: tuple[int, int] = (0, 0)
    count: int = 0
    whole: bool = True

    def add(self, packet: Any) -> None:
        """Count in a frame."""
        self.count += 1
        if packet.pts is not None:
            self.stamps.append(packet.pts)
            self.last = max(self.last, (packet.pts, packet.duration or 0))
            if packet.is_keyframe:
                self.keys.append(packet.pts)


class _Frame(NamedTuple):
    """What was decoded, and whether neither it nor what it was made of is damaged."""

    decoded: Any
    sound: bool

    @property
    def pts(self) -> Any:
        """When it is shown."""
        return self.decoded.pts


def _frames(container: Any, stream: Any) -> Iterator[_Frame]:
    """All frames from where ``container`` is."""
    sound = True
    for frame in container.decode(stream):
        sound = not frame.is_corrupt and (sound or bool(frame.key_frame))
        yield _Frame(frame, sound)


def _stamped(frames: Iterator[_Frame]) -> _Frame | None:
    """The next frame that says when it is shown, None at the end."""
    return next((frame for frame in frames if frame.pts is not None), None)


def _upright(frame: Any) -> Image.Image:
    picture: Image.Image = frame.to_image()
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture
