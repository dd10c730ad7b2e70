"""Procedurally drawn videos: 8 frames of a few objects that move, stand still, come and go.

Like a scene a video is plain data (:class:`VideoScene`), one JSON line long, and
:func:`render_video` draws it, always the same way for the same data. Ground, kinds, colours and
handwritten digits are those of :mod:`prunus.tasks.scenes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunus.tasks.digits import Split, split_indices
from prunus.tasks.scenes import (
    COLORS,
    SHAPES,
    Drawing,
    SceneObject,
    background,
    box_coverage,
    object_alpha,
)

VIDEO_CANVAS = 128
"""Side of a frame in pixels, before it is resized."""

FRAMES = 8
SLICE = 2
"""Frames that the model sees as one; objects come and go between such slices."""

#: What an object does, and by how much it moves to the right and downwards.
MOTIONS: dict[str, tuple[int, int]] = {
    "still": (0, 0),
    "leftward": (-1, 0),
    "rightward": (1, 0),
    "upward": (0, -1),
    "downward": (0, 1),
}

_GAP = 2  # least distance between the areas that two objects pass over, in pixels


@dataclass(frozen=True)
class Actor(SceneObject):
    """One object: the box is the one in which it is first seen; its step ``dx, dy`` from frame to
    frame, in pixels, and the frames ``start <= frame < end`` in which it is there."""

    dx: int = 0
    dy: int = 0
    start: int = 0
    end: int = FRAMES

    @property
    def motion(self) -> str:
        """The word of :data:`MOTIONS` for what it does."""
        sign = (int(np.sign(self.dx)), int(np.sign(self.dy)))
        return next(word for word, step in MOTIONS.items() if step == sign)

    @property
    def appears(self) -> bool:
        """Whether it comes after the video began."""
        return self.start > 0

    @property
    def disappears(self) -> bool:
        """Whether it goes before the video ends."""
        return self.end < FRAMES

    def corner(self, frame: int) -> tuple[int, int] | None:
        """Top-left corner ``(x, y)`` of the box in a frame, None where the object is not there."""
        if not self.start <= frame < self.end:
            return None
        return self.x + self.dx * (frame - self.start), self.y + self.dy * (frame - self.start)


@dataclass(frozen=True)
class VideoScene(Drawing[Actor]):
    """Objects on a still background, which ``seed`` decides together with the shades."""

    item = Actor


def make_video(seed: int, split: Split = "train", objects: tuple[int, int] = (1, 4)) -> VideoScene:
    """Draw the data of a random video.

    ``objects`` is the range (inclusive) of how many are tried; in a crowded frame fewer may find
    a place. No object ever passes over a place where another one is seen at any time.
    """
    rng = np.random.default_rng([seed, 6])
    count = int(rng.integers(objects[0], objects[1] + 1))
    kinds = [*rng.permutation(SHAPES)[: rng.integers(1, 5)]]
    colors = list(rng.permutation(list(COLORS))[: rng.integers(2, 6)])
    digit_share = float(rng.choice([0.0, 0.25, 0.5], p=[0.4, 0.4, 0.2]))
    moving = float(rng.choice([0.25, 0.5, 0.75]))
    changing = float(rng.choice([0.4, 0.7, 0.9]))
    ids = split_indices(split)
    placed: list[Actor] = []
    for _ in range(count):
        is_digit = rng.random() < digit_share
        side = int(rng.integers(20, 31)) if is_digit else int(rng.integers(16, 27))
        words = list(MOTIONS)[1:]
        right, down = MOTIONS[str(rng.choice(words))] if rng.random() < moving else (0, 0)
        speed = int(rng.integers(4, 8))
        start, end = _presence(rng, changing)
        kind, digit_id, angle = "digit", -1, 0
        if is_digit:
            digit_id, angle = int(rng.choice(ids)), int(rng.integers(-10, 11))
        else:
            kind = str(rng.choice(kinds))
        color = str(rng.choice(colors))
        step = (speed * right, speed * down)
        spot = _free_path(rng, placed, side, step, end - start)
        if spot is not None:
            x, y = spot
            placed.append(Actor(kind, color, x, y, side, digit_id, angle, *step, start, end))
    return VideoScene(seed, tuple(placed))


def _presence(rng: np.random.Generator, changing: float) -> tuple[int, int]:
    """First frame and end of one object's presence: whole slices, at least two of them."""
    start, end = 0, FRAMES
    if rng.random() < changing:
        kind = rng.random()
        if kind < 0.6:
            start = SLICE * int(rng.integers(1, FRAMES // SLICE))
        elif kind < 0.9:
            end = SLICE * int(rng.integers(1, FRAMES // SLICE))
        else:
            start, end = SLICE, FRAMES - SLICE
    return start, end


def _swept(x: int, y: int, side: int, step: tuple[int, int], frames: int) -> tuple[int, ...]:
    """Left, top, right and bottom of all that an object passes over."""
    far_x, far_y = x + step[0] * (frames - 1), y + step[1] * (frames - 1)
    return min(x, far_x), min(y, far_y), max(x, far_x) + side, max(y, far_y) + side


def _free_path(
    rng: np.random.Generator,
    placed: Sequence[Actor],
    side: int,
    step: tuple[int, int],
    frames: int,
) -> tuple[int, int] | None:
    """Where an object can begin so that its path is free and inside, or None after 60 tries."""
    taken = [_swept(o.x, o.y, o.size, (o.dx, o.dy), o.end - o.start) for o in placed]
    for _ in range(60):
        x, y = (int(v) for v in rng.integers(0, VIDEO_CANVAS - side + 1, size=2))
        left, top, right, bottom = _swept(x, y, side, step, frames)
        if min(left, top) < 0 or max(right, bottom) > VIDEO_CANVAS:
            continue
        if all(
            right + _GAP <= other[0]
            or other[2] + _GAP <= left
            or bottom + _GAP <= other[1]
            or other[3] + _GAP <= top
            for other in taken
        ):
            return x, y
    return None


def render_frames(scene: VideoScene) -> NDArray[np.uint8]:
    """The drawn video as ``(8, 128, 128, 3)`` uint8 RGB."""
    rng = np.random.default_rng([scene.seed, 7])
    ground = background(rng)[:VIDEO_CANVAS, :VIDEO_CANVAS]
    frames = np.repeat(ground[None], FRAMES, axis=0)
    for item in scene.objects:
        shade = np.array(COLORS[item.color], dtype=np.float32) + rng.uniform(-22, 22, size=3)
        shade = (shade + rng.normal(0, 6, size=3)).astype(np.float32)
        alpha = object_alpha(item)[..., None]
        for number, frame in enumerate(frames):
            corner = item.corner(number)
            if corner is not None:
                area = frame[corner[1] :, corner[0] :][: item.size, : item.size]
                area += alpha * (shade - area)
    return np.clip(frames, 0, 255).astype(np.uint8)


def render_video(scene: VideoScene, side: int = VIDEO_CANVAS) -> list[Image.Image]:
    """The frames as RGB images of ``side`` x ``side`` pixels."""
    frames = [Image.fromarray(frame) for frame in render_frames(scene)]
    if side == VIDEO_CANVAS:
        return frames
    return [frame.resize((side, side), Image.Resampling.BICUBIC) for frame in frames]


def actor_coverage(scene: VideoScene, rows: int, cols: int) -> NDArray[np.float32]:
    """How much of each cell each object covers, slice by slice:
    ``(objects, slices, rows, cols)`` float32 in 0..1, means over the frames of a slice."""
    cover = np.zeros((len(scene.objects), FRAMES // SLICE, rows, cols), dtype=np.float32)
    for index, item in enumerate(scene.objects):
        for frame in range(FRAMES):
            corner = item.corner(frame)
            if corner is not None:
                cell = box_coverage(item, *corner, VIDEO_CANVAS, rows, cols)
                cover[index, frame // SLICE] += cell / SLICE
    return cover
