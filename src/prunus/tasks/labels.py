"""What each patch should be called: targets of the first training stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunus.tasks.scenes import CANVAS, COLORS, KINDS, Scene, object_coverage
from prunus.tasks.words import COLUMNS, DIGITS, ROWS

#: Words that compete with each other; a patch gets at most one from each group.
GROUPS: dict[str, tuple[str, ...]] = {
    "kind": (*KINDS, "background"),
    "color": tuple(COLORS),
    "digit": DIGITS,
    "row": ROWS,
    "column": COLUMNS,
}
IGNORE = -100


@dataclass
class PatchLabels:
    """Targets of one canvas, each ``(rows, cols)``.

    ``words`` maps a group to int64 indices into its words (``IGNORE`` where nothing is asked),
    ``owner`` int64 is the object that a patch names, -1 for background, ``IGNORE`` for patches
    that an object only grazes; ``center`` ``(rows, cols, 2)`` float32 is the owner's centre and
    ``middle`` bool marks the one patch that holds it.
    """

    words: dict[str, NDArray[np.int64]]
    owner: NDArray[np.int64]
    center: NDArray[np.float32]
    middle: NDArray[np.bool_]


def third(value: float) -> int:
    """Which third of the canvas a coordinate in pixels lies in."""
    return min(int(value * 3 // CANVAS), 2)


def label_patches(scene: Scene, side: int) -> PatchLabels:
    """Name the patches of a ``side`` x ``side`` grid."""
    cover = object_coverage(scene, side, side)
    total = cover.sum(axis=0)
    owner = np.full((side, side), -1, dtype=np.int64)
    owner[total > 0] = IGNORE
    where = np.indices((side, side)).transpose(1, 2, 0)
    thirds = where * 3 // side
    words = {name: np.full((side, side), IGNORE, dtype=np.int64) for name in GROUPS}
    center = np.zeros((side, side, 2), dtype=np.float32)
    middle = np.zeros((side, side), dtype=bool)
    for index, item in enumerate(scene.objects):
        own = cover[index]
        named = (own >= 0.5 * own.max()) & (own >= 0.6 * total)
        owner[named] = index
        x, y = item.center
        words["kind"][named] = KINDS.index(item.kind)
        words["color"][named] = list(COLORS).index(item.color)
        if item.digit is not None:
            words["digit"][named] = item.digit
        words["row"][named] = third(y)
        words["column"][named] = third(x)
        center[named] = (x / CANVAS, y / CANVAS)
        middle[int(y) * side // CANVAS, int(x) * side // CANVAS] = True
    ground = owner == -1
    words["kind"][ground] = len(KINDS)
    words["row"][ground] = thirds[ground][:, 0]
    words["column"][ground] = thirds[ground][:, 1]
    return PatchLabels(words, owner, center, middle)
