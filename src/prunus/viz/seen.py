"""The image as the model saw it: after the processor's resizing, cropping and normalising."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunus.errors import PrunusError
from prunus.grid import Grid

Picture = NDArray[np.float32]
"""``[height, width, 3]``, values in [0, 1]."""

_UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def seen_images(pixel_values: Any, image_processor: Any) -> list[Picture]:
    """Undo the normalisation of ``pixel_values`` ``[images, 3, height, width]``.

    Args:
        pixel_values: a tensor or an array, as the processor made it.
        image_processor: its ``image_mean`` and ``image_std`` are undone if ``do_normalize`` is set.

    Raises:
        PrunusError: another shape (some processors flatten patches; use :func:`resized_image`).
    """
    if hasattr(pixel_values, "detach"):
        pixel_values = pixel_values.detach().float().cpu().numpy()
    values = np.asarray(pixel_values, dtype=np.float32)
    if values.ndim != 4 or values.shape[1] != 3:
        raise PrunusError(
            f"pixel_values of shape {values.shape} are no pictures: expected [images, 3, h, w]"
        )
    mean, std = _UNIT
    if getattr(image_processor, "do_normalize", True):
        mean = getattr(image_processor, "image_mean", None) or mean
        std = getattr(image_processor, "image_std", None) or std
    pictures = values.transpose(0, 2, 3, 1) * np.asarray(std) + np.asarray(mean)
    return [np.clip(picture, 0.0, 1.0).astype(np.float32) for picture in pictures]


def joined_tiles(grid: Grid, tiles: Iterator[Picture]) -> Picture:
    """The picture of an image's ``grid`` of the next ``tiles`` that the vision tower was given: one
    for all of it, or what its seams divide it into, row by row."""
    bands = [np.concatenate([next(tiles) for _ in band], axis=1) for band in grid.tiles]
    return np.concatenate(bands, axis=0)


def resized_image(image: Image.Image, grid: Grid) -> Picture:
    """The picture for a processor that only resizes (no crop): ``image`` stretched to ``grid``; of
    a grid that lies in an ``area`` of the image, what is there, black beyond the image's edge."""
    height, width = grid.cell
    size = (grid.cols * width, grid.rows * height)
    seen = image.convert("RGB")
    if grid.area is None:
        seen = seen.resize(size)
    else:
        left, top, wide, high = grid.area
        corners = (round(left), round(top), round(left + wide), round(top + high))
        seen = seen.crop(corners).resize(size)
    return np.asarray(seen, dtype=np.float32) / 255.0


def as_picture(image: Image.Image | NDArray[Any]) -> Picture:
    """A PIL image, or an array ``[h, w, 3]`` of bytes or of floats in [0, 1], as a picture.

    Raises:
        PrunusError: an array of another shape.
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3:
        raise PrunusError(f"an array of shape {array.shape} is no picture: expected [h, w, 3]")
    scale = 255.0 if array.dtype == np.uint8 else 1.0
    picture: Picture = np.clip(array.astype(np.float32) / scale, 0.0, 1.0)
    return picture
