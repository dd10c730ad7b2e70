"""Images to ask about, by the names that commands take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from prunus.io.images import open_images
from prunus.tasks.drawn import BUILTIN, drawn_image


def is_drawn(name: str | Path) -> bool:
    """Whether ``name`` is that of a drawn scene."""
    return str(name).startswith(BUILTIN)


def open_pictures(names: Sequence[str | Path]) -> list[Image.Image]:
    """Image files, as :func:`prunus.io.images.open_images` has them; ``builtin:NUMBER`` is a drawn
    scene.

    Raises:
        PrunusFileError: a file that is missing, unreadable or no image.
        PrunusError: no scene has this number.
    """
    files = iter(open_images([Path(name) for name in names if not is_drawn(name)]))
    return [drawn_image(str(name)) if is_drawn(name) else next(files) for name in names]
