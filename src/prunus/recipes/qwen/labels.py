"""What each visual token should be called: targets of the first training stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunus.tasks.labels import IGNORE
from prunus.tasks.scenes import CANVAS, COLORS, KINDS, Scene, SceneObject, object_coverage
from prunus.tasks.videos import (
    FRAMES,
    MOTIONS,
    SLICE,
    VIDEO_CANVAS,
    Actor,
    VideoScene,
    actor_coverage,
)
from prunus.tasks.words import DIGITS

#: Words that compete with each other; a token gets at most one from each group. Rows and columns
#: are not among them: the tower has no absolute positions, the language model does.
GROUPS: dict[str, tuple[str, ...]] = {
    "kind": (*KINDS, "background"),
    "color": tuple(COLORS),
    "digit": DIGITS,
    "motion": tuple(MOTIONS),
}


@dataclass
class TokenLabels:
    """Targets of one grid, each ``(rows, cols)``.

    ``words`` maps a group to int64 indices into its words (``IGNORE`` where nothing is asked),
    ``owner`` int64 is the object that a token names, -1 for background, ``IGNORE`` for tokens
    that an object only grazes; ``center`` ``(rows, cols, 2)`` float32 points from the token's
    middle to its owner's, down and right in tokens; ``middle`` bool marks the token that holds it.
    """

    words: dict[str, NDArray[np.int64]]
    owner: NDArray[np.int64]
    center: NDArray[np.float32]
    middle: NDArray[np.bool_]


def label_scene(scene: Scene, rows: int, cols: int) -> TokenLabels:
    """Name the tokens of an image; what does not move in time has no motion to name."""
    centers = [(y / CANVAS * rows, x / CANVAS * cols) for x, y in (o.center for o in scene.objects)]
    return _label(scene.objects, object_coverage(scene, rows, cols), centers, moving=False)


def label_video(video: VideoScene, rows: int, cols: int) -> list[TokenLabels]:
    """Name the tokens of a video, one grid for each pair of frames."""
    cover = actor_coverage(video, rows, cols)
    found = []
    for number in range(FRAMES // SLICE):
        centers = []
        for item in video.objects:
            time = number * SLICE + (SLICE - 1) / 2 - item.start
            x, y = (item.x + item.dx * time, item.y + item.dy * time)
            middle = ((y + item.size / 2) * rows, (x + item.size / 2) * cols)
            centers.append((middle[0] / VIDEO_CANVAS, middle[1] / VIDEO_CANVAS))
        found.append(_label(video.objects, cover[:, number], centers, moving=True))
    return found


def _label(
    objects: Sequence[SceneObject | Actor],
    cover: NDArray[np.float32],
    centers: Sequence[tuple[float, float]],
    moving: bool,
) -> TokenLabels:
    shape = cover.shape[1:]
    total = cover.sum(axis=0)
    owner = np.full(shape, -1, dtype=np.int64)
    owner[total > 0] = IGNORE
    words = {name: np.full(shape, IGNORE, dtype=np.int64) for name in GROUPS}
    middle = np.zeros(shape, dtype=bool)
    center = np.zeros((*shape, 2), dtype=np.float32)
    where = np.indices(shape).transpose(1, 2, 0) + 0.5
    for index, (item, own, at) in enumerate(zip(objects, cover, centers, strict=True)):
        if not own.any():
            continue
        named = (own >= 0.5 * own.max()) & (own >= 0.6 * total)
        owner[named] = index
        words["kind"][named] = KINDS.index(item.kind)
        words["color"][named] = list(COLORS).index(item.color)
        if item.digit is not None:
            words["digit"][named] = item.digit
        if moving and isinstance(item, Actor):
            words["motion"][named] = list(MOTIONS).index(item.motion)
        center[named] = (np.array(at) - where)[named]
        middle[min(int(at[0]), shape[0] - 1), min(int(at[1]), shape[1] - 1)] = True
    words["kind"][owner == -1] = len(KINDS)
    return TokenLabels(words, owner, center, middle)
