"""Image files as models want them: upright, in RGB, or refused with the reason."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from prunus.errors import PrunusError, PrunusFileError, brief, shown

#: Modes with 16 bits for each grey value, whose white is 65535.
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
#: Modes with transparency of their own; others may say which colour is transparent.
_CLEAR = ("LA", "La", "PA", "RGBA", "RGBa")
#: Bytes that are read from standard input, which may never end.
_MOST = 1 << 29


def open_image(path: str | Path, place: str = "") -> Image.Image:
    """Read an image file: turned as its EXIF says, and converted by :func:`to_rgb`.

    Args:
        path: the file.
        place: where it is named ("questions.jsonl, line 3"); starts every message.

    Raises:
        PrunusFileError: it is missing, a folder, empty, broken, larger than Pillow takes
            (``PIL.Image.MAX_IMAGE_PIXELS``), or of a kind that has no one meaning in RGB.
    """
    name, start = shown(str(path)), f"{place}: " if place else ""
    if not os.path.exists(path):
        raise PrunusFileError(f"{start}no such image file: {name}")
    if os.path.isdir(path):
        raise PrunusFileError(f"{start}{name} is a folder: name image files")
    if os.path.isfile(path) and not os.path.getsize(path):
        raise PrunusFileError(f"{start}the image {name} is empty (0 bytes)")
    with readable(name, start), Image.open(path) as image:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image), image.format)


def decode_image(content: bytes, name: str, place: str = "") -> Image.Image:
    """The image in the bytes of an image file, as :func:`open_image` gives it; messages call it
    ``name``.

    Raises:
        PrunusFileError: as there.
    """
    start = f"{place}: " if place else ""
    with readable(name, start), Image.open(BytesIO(content)) as image:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image), image.format)


@contextmanager
def readable(name: str, start: str = "") -> Iterator[None]:
    """Turn what Pillow raises inside the block about the image called ``name`` into a
    PrunusFileError whose message begins with ``start``."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise PrunusFileError(
            f"{start}{name} is no image that Pillow can read (PNG, JPEG ...)"
        ) from error
    except Image.DecompressionBombError as error:
        raise PrunusFileError(
            f"{start}the image {name} is too large ({brief(error)}): make it smaller"
        ) from error
    except PrunusError as error:
        raise PrunusFileError(f"{start}cannot use the image {name}: {error}") from error
    except MemoryError:
        raise
    # Broken files end in almost any exception of Pillow's readers (struct.error, SyntaxError ...).
    except Exception as error:
        raise PrunusFileError(f"{start}cannot read the image {name}: {brief(error)}") from error


def image_files(paths: Sequence[Path]) -> list[Path]:
    """``paths``, and in the place of a folder the images right inside it, by name.

    Raises:
        PrunusFileError: a folder that cannot be looked into, or without a file whose ending is that
            of a kind of image.
    """
    found: list[Path] = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        endings = Image.registered_extensions()
        try:
            inside = sorted(one for one in path.iterdir() if one.suffix.lower() in endings)
        except OSError as error:
            told = f"cannot look into the folder {shown(str(path))}: {brief(error)}"
            raise PrunusFileError(told) from error
        if not inside:
            raise PrunusFileError(f"no images in the folder {shown(str(path))}: name another")
        found += inside
    return found


def open_images(paths: Sequence[Path]) -> list[Image.Image]:
    """Read image files, upright (EXIF) and in RGB; ``-`` is standard input.

    Raises:
        PrunusFileError: a file that is missing, unreadable or no image; nothing on standard input,
            or two images from there.
    """
    if [str(path) for path in paths].count("-") > 1:
        raise PrunusFileError("- is named twice, and standard input holds one image")
    return [_from_input() if str(path) == "-" else open_image(path) for path in paths]


def _from_input() -> Image.Image:
    """The image on standard input."""
    if sys.stdin is None or sys.stdin.isatty():
        raise PrunusFileError("- reads an image from standard input: prunus run - < photo.jpg")
    content = sys.stdin.buffer.read(_MOST + 1)
    if not content:
        raise PrunusFileError("nothing came on standard input (-): prunus run - < photo.jpg")
    if len(content) > _MOST:
        raise PrunusFileError(f"standard input (-) goes on behind {_MOST >> 20} MiB: no image does")
    return decode_image(content, "on standard input")


def to_rgb(image: Image.Image, kind: str | None = None) -> Image.Image:
    """``image`` in RGB, 8 bits per channel.

    What is transparent shows white. Of 16 bits the upper ones are kept (Pillow's own conversion
    cuts off at 255). Whole numbers of 32 bits and floating point have to be from 0 to 255, as
    Pillow makes them: nothing says what is white in others.

    Args:
        image: in any mode.
        kind: the file's format, if it comes from one.

    Raises:
        PrunusError: values without an agreed meaning, or a mode that Pillow cannot convert.
    """
    if image.mode in _SIXTEEN or (image.mode == "I" and kind == "PNG"):
        return _grey(np.asarray(image).astype(np.float64) / 257)
    if image.mode in ("I", "F"):
        return _grey(_checked(np.asarray(image).astype(np.float64), image.mode))
    if image.mode in _CLEAR or "transparency" in image.info:
        clear = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, clear).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise PrunusError(f"its mode {image.mode} cannot be converted to RGB") from error


def _checked(values: np.ndarray, mode: str) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255) or (mode == "F" and 0 < high <= 1):  # NaN is neither
        raise PrunusError(
            f"its values go from {low:g} to {high:g} and nothing says which of them is white: "
            "save it with 8 bits per channel"
        )
    return values


def _grey(values: np.ndarray) -> Image.Image:
    """``values`` from 0 to 255, in RGB."""
    return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
