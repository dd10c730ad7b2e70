"""What every video offers, wherever its frames come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunus.errors import PrunusFileError

Times = NDArray[np.float64]
"""``[n]``: the second at which each frame is first shown, ascending, from 0."""


class Source(Protocol):
    """A video whose frames are read when they are wanted, and not kept.

    Attributes:
        name: for messages and reports.
        times: of all frames.
        length: seconds until the end of the last frame.
        timed: whether the file itself says when its frames are shown.
        whole: whether all of it is there; False where a file was cut off.
        listed: whether somebody named every frame, so that all are meant.
    """

    name: str
    times: Times
    length: float
    timed: bool
    whole: bool
    listed: bool

    def read(self, wanted: Sequence[int]) -> Iterator[Image.Image]:
        """The frames with these ascending numbers, in RGB and upright, one at a time.

        Raises:
            PrunusFileError: one cannot be read.
        """
        ...


def even_times(count: int, rate: float | None, name: str) -> Times:
    """Times of ``count`` frames of which ``rate`` are shown in each second.

    Raises:
        PrunusFileError: nobody says how many, and there are several frames.
    """
    if rate is None and count > 1:
        raise PrunusFileError(
            f"nothing says when the {count} frames of {name} are shown: give --source-fps, how "
            "many of them belong to one second"
        )
    return np.arange(count) / (rate or 1.0)
