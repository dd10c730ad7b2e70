"""A short animation of what is left of a video, as GIF or WebP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from io import BytesIO
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from prunus.errors import PrunusError
from prunus.io.files import write_bytes
from prunus.viz.film import Film, as_bytes

FORMATS = (".gif", ".webp")
_LEAST_SIDE, _MOST_SIDE = 320, 640  # pixels: small frames are enlarged, large ones made smaller
_SLOWEST, _FASTEST = 1000, 50  # milliseconds that a frame is shown
_BAR, _LETTERS = 26, 14  # pixels: the line of text below, and its letters


def write_animation(films: Sequence[Film], path: str | Path) -> Path:
    """Write what is left of ``films``, one after the other, as an animation that repeats: every
    frame, dropped patches pale, with its time and how many tokens are left below. It
    runs as fast as the video, but shows each frame for a second at most.

    Raises:
        PrunusError: no video, or a path that is no ``.gif`` or ``.webp``.
        PrunusFileError: the file cannot be written; what was there before is unchanged.
    """
    path = Path(path)
    check_animation(path)
    if not films:
        raise PrunusError("there is no video to animate")
    shape = _shape(films)
    frames = _frames(films, shape)
    first, drawn = next(frames), BytesIO()
    first.save(
        drawn,
        format=path.suffix[1:],
        save_all=True,
        append_images=frames,
        duration=_paces(films),
        loop=0,
    )
    write_bytes(path, drawn.getvalue(), "the animation")
    return path


def check_animation(path: Path) -> None:
    """Raise PrunusError where ``path`` is no name of an animation."""
    if path.suffix.lower() not in FORMATS:
        raise PrunusError(f"cannot write {str(path)!r}: give a file name in {' or '.join(FORMATS)}")


def _shape(films: Sequence[Film]) -> tuple[int, int]:
    """Width and height that hold the frames of all videos."""
    sizes = []
    for film in films:
        picture = next(film.drawn())
        sizes.append(_size(picture.shape[1], picture.shape[0]))
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _size(width: int, height: int) -> tuple[int, int]:
    """The size at which a frame is shown: whole multiples, so that patches stay sharp."""
    longest = max(width, height)
    if longest > _MOST_SIDE:
        scale = _MOST_SIDE / longest
        return max(1, round(width * scale)), max(1, round(height * scale))
    times = max(1, -(-_LEAST_SIDE // longest))
    return width * times, height * times


def _frames(films: Sequence[Film], shape: tuple[int, int]) -> Iterator[Image.Image]:
    width, height = shape
    several = len({film.video for film in films}) > 1
    for film in films:
        start = f"video {film.video}, " if several else ""
        for picture, title in zip(film.drawn(), film.titles(), strict=True):
            image = Image.fromarray(as_bytes(picture))
            size = _size(*image.size)
            larger = size[0] >= image.width
            image = image.resize(
                size, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
            )
            canvas = Image.new("RGB", (width, height + _BAR), "white")
            canvas.paste(image, ((width - size[0]) // 2, (height - size[1]) // 2))
            ImageDraw.Draw(canvas).text(
                (6, height + _BAR // 2), start + title, "black", _font(), anchor="lm"
            )
            yield canvas


def _paces(films: Sequence[Film]) -> list[int]:
    """Milliseconds that each frame is shown."""
    paces = []
    for _, own in groupby(films, key=lambda film: film.video):
        times = [time for film in own for time in film.times]
        usual = 1000 * (times[1] - times[0] if len(times) > 1 else 1.0)
        paces += [round(min(max(usual, _FASTEST), _SLOWEST))] * len(times)
    return paces


@cache
def _font() -> ImageFont.FreeTypeFont:
    """The letters of matplotlib's figures."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", _LETTERS)
