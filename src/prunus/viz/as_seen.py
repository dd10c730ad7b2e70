"""From encoded inputs back to the pictures that the model saw, frame by frame."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from prunus.grid import AnyGrid, Grid
    from prunus.viz.seen import Picture


def pictures_as_seen(
    processor: Any,
    inputs: Any,
    shown: Sequence[Sequence[Image.Image]],
    grids: Sequence[AnyGrid],
) -> list[list[Picture]]:
    """For each image or video of the prompt its pictures, in [0, 1]: one for an image, or for each
    of its parts if it is cut into tiles; of a video one for each slice.

    Where ``pixel_values`` are pictures, their normalisation is undone, so that cropping shows,
    tiles are put together, and what lies beyond the grid on the right and below (padding of a
    batch, a rest that makes no patch) is cut off; processors that give patches only resize, and
    each frame is resized to its grid instead.
    Where several frames go into one slice of visual tokens, the first of them stands for it.

    Args:
        processor: what made ``inputs``.
        inputs: of the model.
        shown: the frames of each image and video, in the order of the prompt.
        grids: of the visual tokens of each, in that order.
    """
    from prunus.viz.seen import joined_tiles, resized_image, seen_images

    pixels = inputs.get("pixel_values", inputs.get("pixel_values_images"))  # an older name
    if pixels is not None and pixels.ndim == 5 and _fit(pixels.flatten(0, 1), grids):
        pixels = pixels.flatten(0, 1)
    if pixels is not None and pixels.ndim == 4 and "image_grid_thw" not in inputs:
        seen_tiles = iter(seen_images(pixels, processor.image_processor))
        if not grids:
            return [[picture] for picture in seen_tiles]
        return [
            [_cut(joined_tiles(part, seen_tiles), part) for part in grid.parts] for grid in grids
        ]
    pictures = []
    for frames, grid in zip(shown, grids, strict=True):
        together = -(-len(frames) // grid.frames)
        seen = itertools.product(grid.parts, frames[::together])
        pictures.append([resized_image(frame, part) for part, frame in seen])
    return pictures


def frames_as_seen(
    processor: Any, inputs: Any, videos: Sequence[Sequence[Image.Image]]
) -> list[Sequence[Image.Image]]:
    """The frames of each video as the model saw them, cropped, where its inputs are pictures;
    elsewhere as they were given: processors that give patches only resize."""
    from PIL import Image

    from prunus.viz.seen import seen_images

    pixels = inputs.get("pixel_values_videos")
    counts = {len(frames) for frames in videos}
    if pixels is None or pixels.ndim != 5 or {pixels.shape[1]} != counts:
        return list(videos)
    found: list[Sequence[Image.Image]] = []
    for one in pixels:
        pictures = seen_images(one, processor.video_processor)
        found.append(
            [Image.fromarray((255 * picture).round().astype("uint8")) for picture in pictures]
        )
    return found


def _fit(pixels: Any, grids: Sequence[AnyGrid]) -> bool:
    """Whether the pictures ``[n, 3, H, W]`` are the tiles of all ``grids``, whole ones."""
    tiles = [tile for grid in grids for part in grid.parts for band in part.tiles for tile in band]
    sides = {(tile.rows * tile.cell[0], tile.cols * tile.cell[1]) for tile in tiles}
    return len(tiles) == len(pixels) and sides == {tuple(pixels.shape[2:])}


def _cut(picture: Picture, grid: Grid) -> Picture:
    """What ``grid`` covers of a ``picture`` whose upper left corner is its own."""
    height, width = grid.cell
    return picture[: grid.rows * height, : grid.cols * width]
