"""Image files as the frames of one video: a list of them, or a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from prunus.errors import PrunusFileError, shown
from prunus.io.images import open_image
from prunus.io.videos.source import even_times

#: Endings of image files; what has another one is taken for a video file.
PICTURES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"}
)


class Pictures:
    """A video whose frames are the image files ``paths``; see :class:`Source`.

    Args:
        paths: in the order of time.
        rate: how many of them belong to one second.
        name: for messages.
        listed: whether all of them are meant unless something else is asked for.

    Raises:
        PrunusFileError: more than one picture and no ``rate``.
    """

    timed = False
    whole = True

    def __init__(
        self, paths: Sequence[Path], rate: float | None, name: str, listed: bool = False
    ) -> None:
        self.name = name
        self.listed = listed
        self._paths = paths
        self.times = even_times(len(paths), rate, shown(name))
        self.length = len(paths) / (rate or 1.0)

    def read(self, wanted: Sequence[int]) -> Iterator[Image.Image]:
        for number in wanted:
            yield open_image(self._paths[number])


def pictures_in(folder: Path) -> list[Path]:
    """Image files right in ``folder``, in natural order: ``frame2`` before ``frame10``. Hidden
    files and others are left out.

    Raises:
        PrunusFileError: there are none, or the folder cannot be read.
    """
    try:
        files = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except OSError as error:
        raise PrunusFileError(
            f"cannot read the folder {shown(str(folder))}: {error.strerror or error}"
        ) from error
    names = [
        name for name in files if not name.startswith(".") and Path(name).suffix.lower() in PICTURES
    ]
    if not names:
        raise PrunusFileError(
            f"the folder {shown(str(folder))} holds no image files (PNG, JPEG ...) to be the "
            "frames of a video: name a folder of frames, or a video file"
        )
    return [folder / name for name in sorted(names, key=_natural)]


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Runs of digits as numbers, and for the rest the text; equal ones by the name itself."""
    pieces = re.split(r"([0-9]+)", name.lower())
    return [(int(p), "") if p.isdigit() and p.isascii() else (-1, p) for p in pieces], name
