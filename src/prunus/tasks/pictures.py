"""Images and videos as ``tiny-qwen`` is shown them: the same scenes at several sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prunus.tasks.scenes import Scene, render
from prunus.tasks.videos import VideoScene, render_video

#: Height and width of an image are each one of these, so that most images are stretched.
SIDES = (192, 224, 256, 288)
_SIDE_SHARES = (0.4, 0.25, 0.2, 0.15)  # in training: small images are cheaper
#: Videos are square.
VIDEO_SIDES = (96, 112, 128)
#: Frames per second of the videos: their 8 frames last four seconds.
FPS = 2.0

Size = tuple[int, int]  # height and width in pixels


def image_size(number: int) -> Size:
    """Height and width of scene ``number`` of an evaluation set: all combinations in turns."""
    high, wide = divmod(number % len(SIDES) ** 2, len(SIDES))
    return SIDES[high], SIDES[(wide + high) % len(SIDES)]


def video_side(number: int) -> int:
    """Side of the frames of video ``number`` of an evaluation set."""
    return VIDEO_SIDES[number % len(VIDEO_SIDES)]


def draw_size(rng: np.random.Generator) -> Size:
    """Height and width of a batch of training images."""
    high, wide = rng.choice(SIDES, size=2, p=_SIDE_SHARES)
    return int(high), int(wide)


def picture(scene: Scene, size: Size) -> Image.Image:
    """The drawn scene, stretched to ``size``."""
    image = render(scene)
    if size == (image.height, image.width):
        return image
    return image.resize((size[1], size[0]), Image.Resampling.BICUBIC)


def normalise(pixels: Tensor) -> Tensor:
    """Pixels ``(b, h, w, 3)`` uint8 to ``(b, 3, h, w)`` float32 as the processor would."""
    return ((pixels.permute(0, 3, 1, 2).float() / 255) - 0.5) / 0.25


def image_pixels(scenes: Sequence[Scene], size: Size) -> Tensor:
    """What the processor makes of the drawn scenes, ``(n, 3, 2, h, w)`` float32."""
    drawn = np.stack([np.asarray(picture(scene, size)) for scene in scenes])
    return normalise(torch.from_numpy(drawn))[:, :, None].expand(-1, -1, 2, -1, -1)


def video_pixels(videos: Sequence[VideoScene], side: int) -> Tensor:
    """What the processor makes of the drawn videos, pair of frames by pair of frames:
    ``(n * 4, 3, 2, side, side)`` float32."""
    frames = np.stack([np.asarray(f) for video in videos for f in render_video(video, side)])
    pixels = normalise(torch.from_numpy(frames))
    return pixels.view(-1, 2, *pixels.shape[1:]).transpose(1, 2)
