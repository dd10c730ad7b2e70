"""The built-in videos as sources of frames, by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from prunus.errors import PrunusError, shown
from prunus.tasks.evalset.videos import load_video_evalset
from prunus.tasks.pictures import FPS, video_side
from prunus.tasks.videos import FRAMES, render_video

#: What names of built-in videos begin with: ``builtin:0`` is the first of ``eval --data videos``.
BUILTIN = "builtin:"


class DrawnVideo:
    """The built-in video called ``name``; see :class:`prunus.io.videos.Source`.

    Raises:
        PrunusError: there is none with this number.
    """

    timed = True
    whole = True
    listed = False

    def __init__(self, name: str) -> None:
        items, number = load_video_evalset(), name.removeprefix(BUILTIN)
        known = {str(index): index for index in range(len(items))}
        if number not in known:
            raise PrunusError(
                f"no built-in video {shown(name)}: there are {BUILTIN}0 to "
                f"{BUILTIN}{len(items) - 1}"
            )
        self.name = name
        self._scene, self._side = items[known[number]].scene, video_side(known[number])
        self.times = np.arange(FRAMES) / FPS
        self.length = FRAMES / FPS

    def read(self, wanted: Sequence[int]) -> Iterator[Image.Image]:
        frames = render_video(self._scene, self._side)
        for number in wanted:
            yield frames[number]
