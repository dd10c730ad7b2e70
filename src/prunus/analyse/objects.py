"""Which visual tokens show the objects of a drawn scene: what scores are held against."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.tasks.scenes import CANVAS, Scene, object_coverage

_CLEARLY = 0.3  # share of a token's cell that an object must cover, as in evaluate.evidence


@lru_cache(maxsize=64)
def _cover(scene: Scene, rows: int, cols: int) -> NDArray[np.float32]:
    """Share of each cell that each object covers, ``[objects, rows * cols]``, on a grid of any
    shape: where it does not divide the canvas, cells overlap by less than a pixel."""
    fine = torch.from_numpy(object_coverage(scene, CANVAS, CANVAS))
    cells: NDArray[np.float32] = adaptive_avg_pool2d(fine, (rows, cols)).flatten(1).numpy()
    return cells


def shown(scene: Scene, grid: AnyGrid, only: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Bool ``[N]``: tokens that clearly show an object, or one of those numbered ``only``. An
    object that covers no token clearly (large cells, thin strokes) is shown by the one it covers
    most.

    Raises:
        PrunusError: a grid of several frames: scenes are images.
    """
    if grid.frames != 1:
        raise PrunusError(f"a scene is one image, the grid has {grid.frames} frames")
    cover = _cover(scene, grid.rows, grid.cols)
    cover = cover if only is None else cover[list(only)]
    clear = cover >= np.minimum(_CLEARLY, cover.max(axis=1, keepdims=True))
    found: NDArray[np.bool_] = clear.any(axis=0)
    return found
