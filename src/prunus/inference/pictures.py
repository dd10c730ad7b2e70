"""Images to ask about, by the names that commands take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from prunus.io.images import open_images
from prunus.tasks.drawn import drawn_image
from prunus.tasks.photographs import BUILTIN, PHOTOGRAPHS, photograph


def is_drawn(name: str | Path) -> bool:
    """Whether ``name`` is that of a drawn scene."""
    return _is_builtin(name) and str(name) not in PHOTOGRAPHS


def open_pictures(names: Sequence[str | Path]) -> list[Image.Image]:
    """Image files, as :func:`prunus.io.images.open_images` has them; ``builtin:NUMBER`` is a drawn
    scene, ``builtin:cat`` and others are photographs.

    Raises:
        PrunusFileError: a file that is missing, unreadable or no image.
        PrunusError: nothing that is built in has this name.
    """
    files = iter(open_images([Path(name) for name in names if not _is_builtin(name)]))
    return [_builtin(str(name)) if _is_builtin(name) else next(files) for name in names]


def _is_builtin(name: str | Path) -> bool:
    return str(name).startswith(BUILTIN)


def _builtin(name: str) -> Image.Image:
    return photograph(name) if name in PHOTOGRAPHS else drawn_image(name)
