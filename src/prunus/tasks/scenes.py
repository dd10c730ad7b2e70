"""Procedurally drawn scenes: a few small objects on a 192x192 canvas with a busy background.

A scene is plain data (:class:`Scene`), one JSON line long; :func:`render` draws it, always the
same way for the same data. With patches of 8 px the canvas has 24x24 = 576 patches, as many
visual tokens as LLaVA-1.5 sees, and about a tenth of them show an object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunus.errors import PrunusError
from prunus.tasks.digits import Split, digit_data, split_indices

CANVAS = 192
"""Side of the canvas in pixels."""

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
KINDS = (*SHAPES, "digit")
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 45, 40),
    "green": (50, 185, 60),
    "blue": (50, 90, 235),
    "yellow": (240, 215, 40),
    "purple": (185, 60, 205),
    "white": (245, 245, 245),
}

_GAP = 3  # least distance between two boxes, in pixels
_SUPERSAMPLE = 4


@dataclass(frozen=True)
class SceneObject:
    """One object: what it is and the square box (pixels) that it is drawn in."""

    kind: str
    color: str
    x: int
    y: int
    size: int
    digit_id: int = -1
    angle: int = 0

    @property
    def center(self) -> tuple[float, float]:
        """Centre ``(x, y)`` of the box in pixels."""
        return self.x + self.size / 2, self.y + self.size / 2

    @property
    def digit(self) -> int | None:
        """The value 0..9 that is written, or None where the object is no digit."""
        return int(digit_data()[1][self.digit_id]) if self.kind == "digit" else None


T = TypeVar("T", bound=SceneObject)
S = TypeVar("S", bound="Drawing[Any]")


@dataclass(frozen=True)
class Drawing(Generic[T]):
    """What is drawn: a seed and objects of one kind of data class, ``item``."""

    item: ClassVar[type[SceneObject]]

    seed: int
    objects: tuple[T, ...]

    def to_json(self) -> str:
        """One short JSON line: the seed, and for each object its fields in order."""
        rows = [list(astuple(item)) for item in self.objects]
        return json.dumps({"seed": self.seed, "objects": rows}, separators=(",", ":"))

    @classmethod
    def from_json(cls: type[S], line: str) -> S:
        """Inverse of :meth:`to_json`."""
        raw = json.loads(line)
        return cls(int(raw["seed"]), tuple(cls.item(*row) for row in raw["objects"]))


@dataclass(frozen=True)
class Scene(Drawing[SceneObject]):
    """Objects on a background; ``seed`` decides background, speckles and shade of colours."""

    item = SceneObject


def make_scene(
    seed: int, split: Split = "train", objects: tuple[int, int] = (3, 7), size: int = CANVAS
) -> Scene:
    """Draw the data of a random scene.

    ``objects`` is the range (inclusive) of how many are tried; on a crowded canvas fewer may
    find a place. ``size`` is the side in pixels of the square, from the top left, that may be
    used. Kinds and colours of a scene come from small subsets, so that counts above one are
    common and a colour alone seldom gives an object away.
    """
    rng = np.random.default_rng([seed, 0])
    count = int(rng.integers(objects[0], objects[1] + 1))
    shapes = list(rng.permutation(SHAPES)[: rng.integers(1, 5)])
    colors = list(rng.permutation(list(COLORS))[: rng.integers(2, 6)])
    digit_share = float(rng.choice([0.0, 0.25, 0.5], p=[0.15, 0.5, 0.35]))
    ids = split_indices(split)
    placed: list[SceneObject] = []
    for _ in range(count):
        is_digit = rng.random() < digit_share
        side = int(rng.integers(20, 31)) if is_digit else int(rng.integers(16, 27))
        spot = _free_spot(rng, placed, side, size)
        if spot is None:
            continue
        color = str(rng.choice(colors))
        if is_digit:
            angle = int(rng.integers(-10, 11))
            placed.append(SceneObject("digit", color, *spot, side, int(rng.choice(ids)), angle))
        else:
            placed.append(SceneObject(str(rng.choice(shapes)), color, *spot, side))
    return Scene(seed, tuple(placed))


def _free_spot(
    rng: np.random.Generator, placed: Sequence[SceneObject], side: int, canvas: int
) -> tuple[int, int] | None:
    """A top-left corner where a box of ``side`` px touches no other, or None after 60 tries."""
    for _ in range(60):
        x, y = (int(v) for v in rng.integers(0, canvas - side + 1, size=2))
        if all(
            x + side + _GAP <= o.x
            or o.x + o.size + _GAP <= x
            or y + side + _GAP <= o.y
            or o.y + o.size + _GAP <= y
            for o in placed
        ):
            return x, y
    return None


@lru_cache(maxsize=4096)
def _shape_alpha(kind: str, side: int) -> NDArray[np.float32]:
    """Opacity ``(side, side)`` float32 of a shape, anti-aliased by supersampling."""
    n = side * _SUPERSAMPLE
    axis = (np.arange(n) + 0.5) / n * 2 - 1
    x, y = np.meshgrid(axis, axis)
    radius = np.hypot(x, y)
    if kind == "circle":
        inside = radius <= 1
    elif kind == "square":
        inside = np.maximum(abs(x), abs(y)) <= 0.88
    elif kind == "triangle":
        inside = (abs(x) <= (y + 1) / 2) & (y <= 0.95)
    elif kind == "cross":
        inside = np.minimum(abs(x), abs(y)) <= 0.3
    elif kind == "ring":
        inside = (radius <= 1) & (radius >= 0.52)
    elif kind == "star":
        turn = np.arctan2(x, -y) % (2 * np.pi / 5)
        turn = np.minimum(turn, 2 * np.pi / 5 - turn)  # angle from the nearest spike
        inner, half = 0.42, np.pi / 5
        # the edge runs from the spike (radius 1, angle 0) to the notch (radius inner, angle half)
        cross = inner * np.sin(half)
        inside = (
            radius * (np.sin(turn) * (1 - inner * np.cos(half)) + np.cos(turn) * cross) <= cross
        )
    else:
        raise PrunusError(f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    blocks = inside.reshape(side, _SUPERSAMPLE, side, _SUPERSAMPLE)
    opacity: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return opacity


@lru_cache(maxsize=65536)
def _digit_alpha(digit_id: int, side: int, angle: int) -> NDArray[np.float32]:
    """Opacity ``(side, side)`` float32 of one handwritten digit, enlarged and turned."""
    small = Image.fromarray((digit_data()[0][digit_id].astype(np.float32) * 15.9).astype(np.uint8))
    large = small.resize((side, side), Image.Resampling.BICUBIC)
    turned = large.rotate(angle, resample=Image.Resampling.BILINEAR)
    ink = np.asarray(turned, dtype=np.float32) / 255
    return np.clip((ink - 0.12) * 1.5, 0, 1)


def object_alpha(item: SceneObject) -> NDArray[np.float32]:
    """Opacity ``(size, size)`` float32 in 0..1 of one object inside its box."""
    if item.kind == "digit":
        return _digit_alpha(item.digit_id, item.size, item.angle)
    return _shape_alpha(item.kind, item.size)


def background(rng: np.random.Generator) -> NDArray[np.float32]:
    """A dull ground ``(192, 192, 3)`` float32: gradient, blotches, speckles and grain."""
    corners = rng.uniform(35, 115, size=(2, 2, 1)) + rng.uniform(-16, 16, size=(2, 2, 3))
    coarse = rng.normal(0, rng.uniform(2, 14), size=(13, 13, 1))
    ground = _enlarge(corners.astype(np.float32)) + _enlarge(coarse.astype(np.float32))
    palette = np.array(list(COLORS.values()), dtype=np.float32)
    for _ in range(int(rng.integers(12, 40))):  # speckles: too small to be objects
        w, h = rng.integers(2, 6, size=2)
        x, y = rng.integers(0, CANVAS - 6, size=2)
        tint = palette[rng.integers(len(palette))] if rng.random() < 0.5 else rng.uniform(20, 200)
        area = ground[y : y + h, x : x + w]
        ground[y : y + h, x : x + w] = area + (tint - area) * rng.uniform(0.3, 0.8)
    grain = rng.integers(-9, 10, size=ground.shape, dtype=np.int8)
    return ground + grain


def _enlarge(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear interpolation of ``(n, n, c)`` to ``(192, 192, c)``."""
    at = np.linspace(0, len(grid) - 1, CANVAS, dtype=np.float32)
    low = np.minimum(at.astype(np.int64), len(grid) - 2)
    part = (at - low)[:, None]
    weight = np.zeros((CANVAS, len(grid)), dtype=np.float32)
    weight[np.arange(CANVAS), low] = 1 - part[:, 0]
    weight[np.arange(CANVAS), low + 1] = part[:, 0]
    rows = np.tensordot(weight, grid, axes=(1, 0))
    return np.ascontiguousarray(np.tensordot(weight, rows, axes=(1, 1)).transpose(1, 0, 2))


def render_array(scene: Scene) -> NDArray[np.uint8]:
    """The drawn scene as ``(192, 192, 3)`` uint8 RGB."""
    rng = np.random.default_rng([scene.seed, 1])
    canvas = background(rng)
    for item in scene.objects:
        shade = np.array(COLORS[item.color], dtype=np.float32) + rng.uniform(-22, 22, size=3)
        alpha = object_alpha(item)[..., None]
        ys, xs = slice(item.y, item.y + item.size), slice(item.x, item.x + item.size)
        canvas[ys, xs] += alpha * (shade + rng.normal(0, 6, size=(1, 1, 3)) - canvas[ys, xs])
    return np.clip(canvas, 0, 255).astype(np.uint8)


def render(scene: Scene) -> Image.Image:
    """The drawn scene as a 192x192 RGB image."""
    return Image.fromarray(render_array(scene))


def object_coverage(scene: Scene, rows: int = 24, cols: int = 24) -> NDArray[np.float32]:
    """How much of each patch each object covers: ``(objects, rows, cols)`` float32 in 0..1.

    Raises:
        PrunusError: a grid without cells.
    """
    if rows < 1 or cols < 1:
        raise PrunusError(f"a grid of {rows}x{cols} has no cells: give at least one row and column")
    if CANVAS % rows or CANVAS % cols:
        parts = [box_coverage(o, o.x, o.y, CANVAS, rows, cols) for o in scene.objects]
        return np.stack(parts) if parts else np.zeros((0, rows, cols), dtype=np.float32)
    out = np.zeros((len(scene.objects), rows, cols), dtype=np.float32)
    high, wide = CANVAS // rows, CANVAS // cols
    for index, item in enumerate(scene.objects):
        top, left = item.y // high, item.x // wide
        bottom, right = -(-(item.y + item.size) // high), -(-(item.x + item.size) // wide)
        part = np.zeros(((bottom - top) * high, (right - left) * wide), dtype=np.float32)
        y, x = item.y - top * high, item.x - left * wide
        part[y : y + item.size, x : x + item.size] = object_alpha(item)
        blocks = part.reshape(bottom - top, high, right - left, wide).mean(axis=(1, 3))
        out[index, top:bottom, left:right] = blocks
    return out


def box_coverage(
    item: SceneObject,
    x: float,
    y: float,
    canvas: float | tuple[float, float],
    rows: int,
    cols: int,
) -> NDArray[np.float32]:
    """How much of each cell of a grid over a ``canvas`` (pixels of its side, or height and width)
    an object covers whose box begins at ``(x, y)``, perhaps outside: ``(rows, cols)`` float32 in
    0..1. Cells need not be whole pixels."""
    high, wide = canvas if isinstance(canvas, tuple) else (canvas, canvas)
    down = _overlap(y, item.size, high, rows)
    across = _overlap(x, item.size, wide, cols)
    return np.asarray(down @ object_alpha(item) @ across.T, dtype=np.float32)


def _overlap(start: float, length: int, canvas: float, cells: int) -> NDArray[np.float32]:
    """Share of each cell that each of ``length`` pixels fills, ``(cells, length)`` float32."""
    cell = canvas / cells
    low = np.arange(cells)[:, None] * cell
    pixel = start + np.arange(length)[None]
    shared = np.minimum(low + cell, pixel + 1) - np.maximum(low, pixel)
    return np.asarray(np.clip(shared, 0, None) / cell, dtype=np.float32)


def object_mask(scene: Scene, rows: int = 24, cols: int = 24) -> NDArray[np.bool_]:
    """Which patches each object touches with any ink: ``(objects, rows, cols)`` bool."""
    return object_coverage(scene, rows, cols) > 0


def ground_truth_tokens(
    scene: Scene, asked: Sequence[int], keep: int, rows: int = 24, cols: int = 24
) -> NDArray[np.int64]:
    """The ``keep`` patches that an all-knowing observer would keep, ascending, int64.

    The patches of the objects asked about come first, those of the others after them, each by
    falling coverage; what is left of the budget goes to background patches spread evenly.
    """
    cover = object_coverage(scene, rows, cols).reshape(len(scene.objects), rows * cols)
    return covering_tokens(cover, asked, keep)


def covering_tokens(
    cover: NDArray[np.float32], asked: Sequence[int], keep: int
) -> NDArray[np.int64]:
    """:func:`ground_truth_tokens` of patches that objects ``cover``, ``[objects, patches]``."""
    first = cover[list(asked)].max(axis=0, initial=0.0)
    rest = cover.max(axis=0, initial=0.0)
    score = np.where(first > 0, 2 + first, np.where(rest > 0, 1 + rest, 0.0))
    # golden-ratio order spreads the background patches without favouring any region
    spread = (np.arange(cover.shape[1]) * 0.618033988749895) % 1.0
    order = np.lexsort((spread, -score))
    return np.sort(order[: min(keep, cover.shape[1])])
