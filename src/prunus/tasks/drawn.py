"""The built-in images and videos by number: ``builtin:0`` is the first of an evaluation set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from prunus.errors import PrunusError, shown
from prunus.tasks.evalset import load_evalset
from prunus.tasks.evalset.videos import load_video_evalset
from prunus.tasks.photographs import BUILTIN, PHOTOGRAPHS
from prunus.tasks.pictures import FPS, video_side
from prunus.tasks.scenes import render
from prunus.tasks.videos import FRAMES, render_video


def drawn_image(name: str) -> Image.Image:
    """The built-in scene called ``name`` (192x192 RGB), of those that ``eval`` asks about.

    Raises:
        PrunusError: there is none with this number.
    """
    items = load_evalset()
    return render(items[_number("image", name, len(items))].scene)


def _number(kind: str, name: str, count: int) -> int:
    """Which of ``count`` is meant by ``name``."""
    known = {f"{BUILTIN}{number}": number for number in range(count)}
    if name not in known:
        more = f", and photographs: {', '.join(PHOTOGRAPHS)}" if kind == "image" else ""
        raise PrunusError(
            f"no built-in {kind} {shown(name)}: there are {BUILTIN}0 to {BUILTIN}{count - 1}{more}"
        )
    return known[name]


class DrawnVideo:
    """The built-in video called ``name``; see :class:`prunus.io.videos.Source`.

    Raises:
        PrunusError: there is none with this number.
    """

    timed = True
    whole = True
    listed = False

    def __init__(self, name: str) -> None:
        items = load_video_evalset()
        number = _number("video", name, len(items))
        self.name = name
        self._scene, self._side = items[number].scene, video_side(number)
        self.times = np.arange(FRAMES) / FPS
        self.length = FRAMES / FPS

    def read(self, wanted: Sequence[int]) -> Iterator[Image.Image]:
        frames = render_video(self._scene, self._side)
        for number in wanted:
            yield frames[number]
