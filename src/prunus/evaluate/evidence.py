"""What a method kept of the objects in a scene: the reasons behind its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunus.evaluate.coverage import coverage
from prunus.grid import Grid
from prunus.results.stats import auroc
from prunus.results.trace import TraceEntry
from prunus.tasks.scenes import Scene
from prunus.tasks.videos import VideoScene

_CLEARLY = 0.3  # share of a patch that an object must cover to count as shown in it


@dataclass(frozen=True)
class Evidence:
    """Of one selection: ``objects`` is the share of all objects' ink that lies in kept patches,
    ``asked`` that of the objects asked about (NaN where there are none), ``ranking`` the AUROC of
    the first stage's scores against the patches that clearly show an object (NaN without scores).
    """

    objects: float
    asked: float
    ranking: float


NOTHING = Evidence(np.nan, np.nan, np.nan)


def shows_object(scene: Scene, rows: int, cols: int) -> NDArray[np.bool_]:
    """``[rows * cols]`` bool: patches that clearly show an object."""
    return _clear(coverage(scene, Grid(1, rows, cols, (1, 1))))


def _clear(cover: NDArray[np.float32]) -> NDArray[np.bool_]:
    clear: NDArray[np.bool_] = cover.max(axis=0, initial=0.0) >= _CLEARLY
    return clear


def evidence(
    trace: Sequence[TraceEntry], sample: int, scene: Scene | VideoScene, asked: Sequence[int]
) -> Evidence:
    """Compare the selection made for one sample (with one image) with its scene.

    ``objects`` and ``asked`` look at the last stage, ``ranking`` at the first that has scores. An
    empty trace means that nothing was removed.
    """
    if not trace:
        return Evidence(1.0 if scene.objects else np.nan, 1.0 if len(asked) else np.nan, np.nan)
    grid = trace[0].grid[sample][0]
    cover = coverage(scene, grid)
    kept = trace[-1].kept[sample][0].numpy()
    everything, wanted = cover.sum(axis=0), cover[list(asked)].sum(axis=0)
    scores = next((entry.scores for entry in trace if entry.scores is not None), None)
    ranking = np.nan
    if scores is not None:
        values = scores[sample][0].numpy().astype(np.float64)
        ranking = auroc(values, _clear(cover))
    return Evidence(_share(everything, kept), _share(wanted, kept), ranking)


def _share(ink: NDArray[np.float32], kept: NDArray[np.int64]) -> float:
    total = float(ink.sum())
    return float(ink[kept].sum()) / total if total else np.nan
