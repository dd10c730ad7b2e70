"""Videos to ask about: files, or frames given as image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from prunus.errors import PrunusError
from prunus.io.images import open_images
from prunus.tasks.sets import Clip

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def open_videos(paths: Sequence[Path], fps: float, most: int) -> list[Clip]:
    """One video for each file; or, if all ``paths`` are pictures, one video of these frames.

    Args:
        paths: video files, or image files in the order of time.
        fps: frames per second to take from a file; of pictures, how far they are apart.
        most: frames to take from a file at most. A longer video is taken at half the rate, or a
            quarter ..., so that its frames stay evenly apart and its end is there.

    Raises:
        PrunusError: a file that is missing or no video, PyAV is not installed, or pictures and
            video files together.
    """
    if not paths:
        return []
    pictures = [path.suffix.lower() in _PICTURES for path in paths]
    if all(pictures):
        frames = open_images(paths)
        if len({frame.size for frame in frames}) > 1:
            sizes = ", ".join(sorted({f"{f.width}x{f.height}" for f in frames}))
            raise PrunusError(f"the frames of a video must have one size, these have {sizes}")
        return [Clip(tuple(frames), fps)]
    if any(pictures):
        raise PrunusError("videos are video files, or image files as frames of one video, not both")
    return [_read(path, fps, most) for path in paths]


def _read(path: Path, fps: float, most: int) -> Clip:
    if not path.is_file():
        raise PrunusError(f"no such video file: {str(path)!r}")
    # The first frame of each slot of time; slots become longer as the video turns out to be.
    slots: dict[int, Image.Image] = {}
    length = 1.0 / fps
    for time, frame in _decode(path):
        slot = int(time / length + 1e-6)
        if slot in slots:
            continue
        slots[slot] = _upright(frame)
        while len(slots) > most:
            length *= 2
            merged: dict[int, Image.Image] = {}
            for number, picture in slots.items():
                merged.setdefault(number // 2, picture)
            slots = merged
    if not slots:
        raise PrunusError(f"the video {str(path)!r} has no frames")
    return Clip(tuple(slots.values()), 1.0 / length)


def _upright(frame: Any) -> Image.Image:
    picture: Image.Image = frame.to_image()
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def _decode(path: Path) -> Iterator[tuple[float, Any]]:
    """Seconds from the start, and PyAV's frame then."""
    try:
        import av
    except ImportError as error:
        raise PrunusError(
            "reading a video file needs PyAV: pip install 'prunus[video]', or give its frames "
            "as image files"
        ) from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PrunusError(f"{str(path)!r} has no video in it")
            start: float | None = None
            for frame in container.decode(container.streams.video[0]):
                time = frame.time or 0.0
                start = time if start is None else start
                yield time - start, frame
    except av.FFmpegError as error:
        raise PrunusError(f"cannot read the video {str(path)!r}: {error}") from error
