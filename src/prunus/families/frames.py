"""Videos whose frames the vision tower is given one by one."""

from __future__ import annotations

from torch import Tensor

from prunus.errors import PrunusError


def frames_of(pixels: Tensor) -> tuple[int, int, int, int]:
    """Number of videos, of frames in each, and height and width of a frame, of
    ``pixel_values_videos``.

    Raises:
        PrunusError: another shape than ``[videos, frames, 3, height, width]``.
    """
    if pixels.ndim != 5:
        raise PrunusError(
            f"pixel_values_videos has shape {tuple(pixels.shape)}: give [videos, frames, 3, "
            "height, width], as the processor does"
        )
    videos, frames, _, height, width = pixels.shape
    return videos, frames, height, width
