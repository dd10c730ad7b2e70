"""Animated GIF, WebP, PNG and AVIF files as videos, read by Pillow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from prunus.errors import shown
from prunus.io.images import readable, to_rgb

#: Formats whose pictures follow each other in time; pages of a TIFF do not.
_FORMATS = frozenset({"GIF", "WEBP", "PNG", "AVIF"})
#: Milliseconds; a frame that asks for less than the first is shown for the second by browsers.
_LEAST, _USUAL = 11.0, 100.0


def is_animated(path: Path) -> bool:
    """Whether ``path`` is an image file with several pictures that follow each other in time;
    False for what is no image."""
    try:
        with Image.open(path) as image:
            return image.format in _FORMATS and getattr(image, "n_frames", 1) > 1
    except Exception:  # whatever is wrong is said where it is opened
        return False


class Animation:
    """The video in the animated image file ``path``; see :class:`Source`.

    Frames last as long as the file says; those of 10 ms or less, which include all that say
    nothing, as long as browsers show them: a tenth of a second.

    Raises:
        PrunusFileError: the file is broken.
    """

    timed = True
    whole = True
    listed = False

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        with readable(shown(self.name)), Image.open(path) as image:
            self._first = int(bool(image.info.get("default_image")))  # shown by those who play none
            count = int(getattr(image, "n_frames", 1)) - self._first
            lasting = [_milliseconds(image, self._first + number) for number in range(count)]
        ends = np.cumsum(lasting) / 1000
        self.times = np.concatenate([[0.0], ends[:-1]])
        self.length = float(ends[-1])

    def read(self, wanted: Sequence[int]) -> Iterator[Image.Image]:
        with readable(shown(self.name)), Image.open(self._path) as image:
            for number in wanted:
                image.seek(self._first + number)
                yield to_rgb(ImageOps.exif_transpose(image), image.format)


def _milliseconds(image: Image.Image, number: int) -> float:
    image.seek(number)
    image.load()  # some formats say only then how long a frame lasts
    duration = float(image.info.get("duration") or 0.0)
    return duration if duration >= _LEAST else _USUAL
