"""Videos to ask about: from what was named to the frames that a model is shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from prunus.errors import PrunusError, shown
from prunus.inference.sampling import Chosen, Sampling, choose
from prunus.io.videos import (
    PICTURES,
    Animation,
    Pictures,
    Source,
    VideoFile,
    is_animated,
    pictures_in,
)
from prunus.tasks.drawn import DrawnVideo
from prunus.tasks.photographs import BUILTIN
from prunus.tasks.sets import Clip


@dataclass(frozen=True)
class Excerpt(Clip):
    """Frames of the video called ``name``, which lasts ``length`` seconds: those with these
    ``numbers`` in it."""

    name: str = ""
    length: float = 0.0
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Planned:
    """Frames that are to be read of ``source``."""

    source: Source
    chosen: Chosen

    @property
    def count(self) -> int:
        """How many frames a model will be shown."""
        return len(self.chosen.numbers)

    def read(self, step: Callable[[], None] | None = None) -> Excerpt:
        """Read them, and call ``step`` for each.

        Raises:
            PrunusError: one cannot be read, or they differ in size.
        """
        wanted = sorted(set(self.chosen.numbers))
        found: dict[int, Image.Image] = {}
        for number, frame in zip(wanted, self.source.read(wanted), strict=True):
            found[number] = frame
            if step is not None:
                step()
        if len({frame.size for frame in found.values()}) > 1:
            sizes = ", ".join(sorted({f"{f.width}x{f.height}" for f in found.values()}))
            raise PrunusError(
                f"the frames of a video must have one size, those of {shown(self.source.name)} "
                f"have {sizes}"
            )
        frames = tuple(found[number] for number in self.chosen.numbers)
        return Excerpt(
            frames,
            self.chosen.fps,
            self.chosen.start,
            self.source.name,
            self.source.length,
            self.chosen.numbers,
        )


def plan_videos(paths: Sequence[Path], sampling: Sampling) -> list[Planned]:
    """One video for each path: a video file, a folder of frames, an animated image file, or
    ``builtin:NUMBER``; or, if all are still pictures, one video of these frames. What they are and
    which frames are taken is found out, and no frame is read.

    Raises:
        PrunusError: nothing is there, it is broken, PyAV is not installed, pictures and videos are
            mixed, frames that are wanted are not there, or nothing says when frames are shown.
    """
    if not paths:
        return []
    still = [_is_still(path) for path in paths]
    if all(still):
        name = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        sources: list[Source] = [Pictures(paths, sampling.source_fps, name, listed=True)]
    elif any(still):
        raise PrunusError(
            "videos are video files, folders or animations, or image files as frames of one video, "
            "not both"
        )
    else:
        sources = [_source(path, sampling.source_fps) for path in paths]
    if sampling.source_fps is not None and all(source.timed for source in sources):
        raise PrunusError(
            f"--source-fps {sampling.source_fps:g}: {shown(sources[0].name)} says itself when its "
            "frames are shown; leave it out (--fps says how many are taken)"
        )
    return [Planned(source, choose(source, sampling)) for source in sources]


def open_videos(paths: Sequence[Path], sampling: Sampling) -> list[Excerpt]:
    """Plan and read; see :func:`plan_videos`."""
    return [planned.read() for planned in plan_videos(paths, sampling)]


def _is_still(path: Path) -> bool:
    if os.path.isdir(path) or str(path).startswith(BUILTIN):
        return False
    return path.suffix.lower() in PICTURES and not is_animated(path)


def _source(path: Path, rate: float | None) -> Source:
    if str(path).startswith(BUILTIN):
        return DrawnVideo(str(path))
    if os.path.isdir(path):
        return Pictures(pictures_in(path), rate, str(path))
    if path.suffix.lower() in PICTURES:
        return Animation(path)
    return VideoFile(path, rate)
