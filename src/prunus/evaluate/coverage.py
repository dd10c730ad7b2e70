"""Which visual tokens show which object of a drawn scene or video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from prunus.errors import PrunusError
from prunus.grid import AnyGrid, Grid, Tiles
from prunus.tasks.scenes import (
    CANVAS,
    Scene,
    box_coverage,
    covering_tokens,
    object_coverage,
)
from prunus.tasks.videos import VideoScene, actor_coverage


@lru_cache(maxsize=256)
def coverage(scene: Scene | VideoScene, grid: AnyGrid) -> NDArray[np.float32]:
    """How much of each token each object covers, ``[objects, grid.size]`` float32 in 0..1; in a
    video the mean over the frames of a token.

    Raises:
        PrunusError: a grid with other frames than the scene has.
    """
    if isinstance(scene, Scene):
        if grid.frames != 1:
            raise PrunusError(f"an image has no {grid.frames} frames: its objects lie in one grid")
        if isinstance(grid, Tiles) and (grid.loose or grid.padded):
            raise PrunusError(
                "it is not known where the tiles of this image lie, nor its objects in them: say "
                "how large the picture is (image_sizes) if the model takes that, or draw it smaller"
            )
        return np.concatenate([_of_part(scene, part, grid.parts[0]) for part in grid.parts], 1)
    else:
        cover = actor_coverage(scene, grid.rows, grid.cols)
        if grid.frames != cover.shape[1]:
            raise PrunusError(
                f"the grid has {grid.frames} slices of time, the drawn video {cover.shape[1]}: "
                "objects are known frame by frame, so that none may be left out"
            )
    return cover.reshape(len(scene.objects), grid.size)


def _of_part(scene: Scene, part: Grid, whole: Grid) -> NDArray[np.float32]:
    """``[objects, part.size]`` of a ``part`` of an image, another of which shows the ``whole``."""
    shape = len(scene.objects), part.size
    if part.area is None or whole.area is None or part is whole:
        return object_coverage(scene, part.rows, part.cols).reshape(shape)
    _, _, width, height = whole.area
    left, top, wide, high = part.area
    x, y = CANVAS / width, CANVAS / height  # the scene may have been drawn at another size
    found = [
        box_coverage(
            item, item.x - left * x, item.y - top * y, (high * y, wide * x), part.rows, part.cols
        )
        for item in scene.objects
    ]
    return np.asarray(found, dtype=np.float32).reshape(shape)


def best_tokens(
    scene: Scene | VideoScene, asked: Sequence[int], keep: int, grid: AnyGrid
) -> NDArray[np.int64]:
    """The ``keep`` tokens that an all-knowing observer would keep, ascending, int64.

    Those of the objects asked about come first, then those of the others, then background spread
    evenly. In an image they follow each other by falling coverage; in a video each object gets its
    best token of every slice of time first, then its second best, and so on.
    """
    if isinstance(scene, Scene):
        return covering_tokens(coverage(scene, grid), asked, keep)
    cover = coverage(scene, grid).reshape(len(scene.objects), grid.frames, -1)
    turn = np.full(cover.shape, np.inf)
    for index, frame in np.ndindex(*cover.shape[:2]):
        order = np.argsort(-cover[index, frame], kind="stable")
        turn[index, frame, order] = np.arange(order.size)
    turn[cover == 0] = np.inf
    flat = turn.reshape(len(turn), grid.size)
    ink = cover.reshape(len(cover), grid.size)
    first = flat[list(asked)].min(axis=0, initial=np.inf)
    rest = flat.min(axis=0, initial=np.inf)
    group = np.where(np.isfinite(first), 0, np.where(np.isfinite(rest), 1, 2))
    place = np.where(group == 0, first, np.where(group == 1, rest, 0))
    spread = (np.arange(grid.size) * 0.618033988749895) % 1.0
    order = np.lexsort((spread, -ink.max(axis=0, initial=0.0), place, group))
    return np.sort(order[: min(keep, grid.size)])
