"""A matplotlib figure as a PNG file, written whole or not at all."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from prunus.io.files import write_bytes


def write_figure(figure: Any, path: Path, few_colours: bool = False) -> Path:
    """Write ``figure`` to ``path``; with ``few_colours`` in 256 of them, which grey and flat
    colours do not miss, at a third of the size.

    Raises:
        PrunusFileError: it cannot be written; what was there before is unchanged.
    """
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    if few_colours:
        with Image.open(drawn) as picture:
            few = picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE)
        drawn = BytesIO()
        few.save(drawn, format="png", optimize=True)
    write_bytes(path, drawn.getvalue(), "the picture")
    return path
