"""From encoded inputs back to the pictures that the model saw, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from prunus.trace import TraceEntry
    from prunus.viz.seen import Picture


def pictures_as_seen(
    processor: Any, inputs: Any, images: Sequence[Image.Image], trace: Sequence[TraceEntry]
) -> list[list[Picture]]:
    """For each image its frames (one, for a picture), in [0, 1].

    Where ``pixel_values`` are pictures, their normalisation is undone, so that cropping shows;
    processors that flatten patches only resize, and the image is resized to its grid instead.
    """
    from prunus.viz.seen import as_picture, resized_image, seen_images

    pixels = inputs["pixel_values"]
    if pixels.ndim == 4:
        return [[picture] for picture in seen_images(pixels, processor.image_processor)]
    if not trace:
        return [[as_picture(image)] for image in images]
    grids = trace[0].grid[0]
    return [[resized_image(image, grid)] for image, grid in zip(images, grids, strict=True)]
