"""Command A Vision (Cohere2 Vision): as Aya Vision, with other marks and another arrangement."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from prunus.families.aya_vision import AyaVision


class Cohere2Vision(AyaVision):
    """``Cohere2VisionForConditionalGeneration``. Each tile is one run of placeholders that a line
    break ends; between two images there are an end and a begin as well, so that runs with one token
    between them are of one image.
    """

    name = "cohere2-vision"
    model_types = ("cohere2_vision",)
    summary = "Command A Vision: tiles and a thumbnail, pixel shuffle, sliding windows"

    def _ends(self, tiles: Sequence[tuple[int, int]], words: Tensor) -> list[bool]:
        gaps = [after - end for (_, end), (after, _) in pairwise(tiles)]
        return [gap > 1 for gap in gaps] + [True] * bool(tiles)

    def _canvas(self, tiles: int, height: int, width: int) -> tuple[int, int]:
        """The one that needs the least enlargement of the picture, or, where all of them make it
        smaller, the least reduction; of equal ones the narrowest."""
        side = self._tile.rows * self._tile.cell[0]
        shapes = [(tiles // cols, cols) for cols in range(1, tiles + 1) if tiles % cols == 0]
        scales = [min(cols * side / width, rows * side / height) for rows, cols in shapes]
        larger = [scale for scale in scales if scale >= 1]
        return shapes[scales.index(min(larger) if larger else max(scales))]
