"""Where the visual tokens of one image (or video) lie."""

from __future__ import annotations

from dataclasses import dataclass

from prunus.errors import PrunusError


@dataclass(frozen=True)
class Grid:
    """Row-major arrangement of one image's visual tokens: token ``n = (t * rows + y) * cols + x``.

    ``cell`` is what one token covers in the image *as the model saw it* (after the processor's
    resizing and cropping): ``(height, width)`` in pixels.
    """

    frames: int
    rows: int
    cols: int
    cell: tuple[int, int]

    @property
    def size(self) -> int:
        """Number of visual tokens."""
        return self.frames * self.rows * self.cols

    def box(self, index: int) -> tuple[int, int, int, int, int]:
        """``(frame, left, top, right, bottom)`` of token ``index``, in pixels of the seen image."""
        if not 0 <= index < self.size:
            raise PrunusError(f"token index {index} is outside the grid of {self.size} tokens")
        frame, rest = divmod(index, self.rows * self.cols)
        row, col = divmod(rest, self.cols)
        height, width = self.cell
        return frame, col * width, row * height, (col + 1) * width, (row + 1) * height
