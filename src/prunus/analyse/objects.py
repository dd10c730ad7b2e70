"""Which visual tokens show the objects of a drawn scene: what scores are held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prunus.analyse.context import Context
from prunus.analyse.signals import Notes
from prunus.evaluate.coverage import coverage
from prunus.grid import AnyGrid, Grid
from prunus.tasks.scenes import Scene
from prunus.tasks.videos import FRAMES, SLICE, VideoScene

_CLEARLY = 0.3  # share of a token's cell that an object must cover, as in evaluate.evidence


def shown(
    scene: Scene | VideoScene, grid: AnyGrid, only: Sequence[int] | None = None
) -> NDArray[np.bool_]:
    """Bool ``[N]``: tokens that clearly show an object, or one of those numbered ``only``. An
    object that covers no token clearly (large cells, thin strokes) is shown by the one it covers
    most.

    Raises:
        PrunusError: a grid with other frames than the scene has.
    """
    cover = coverage(scene, grid)
    cover = cover if only is None else cover[list(only)]
    clear = cover >= np.minimum(_CLEARLY, cover.max(axis=1, keepdims=True))
    found: NDArray[np.bool_] = (clear & (cover > 0)).any(axis=0)
    return found


def known(scene: Scene | VideoScene | None, grid: AnyGrid) -> bool:
    """Whether it can be told which tokens of ``grid`` show the objects of ``scene``: there is one,
    and a video's tokens are slices of as many frames as it was drawn in."""
    if isinstance(scene, VideoScene):
        return isinstance(grid, Grid) and grid.frames == FRAMES // SLICE
    return scene is not None and grid.frames == 1


def masks_of(
    context: Context, notes: Sequence[Notes], asked: bool = False
) -> list[NDArray[np.bool_]] | None:
    """Tokens that show an object (one ``asked`` about), bool ``[N]`` for each prompt; None where
    that is unknown for any."""
    found = []
    for note, query in zip(notes, context.data.queries, strict=True):
        scene = context.data.drawn(query.image)
        if scene is None or not known(scene, note.grid):
            return None
        found.append(shown(scene, note.grid, query.asked if asked else None))
    return found
