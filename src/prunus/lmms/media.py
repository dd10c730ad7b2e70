"""What a task of lmms-eval shows: pictures and videos in all the forms that it hands them over."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prunus.errors import PrunusError, shown
from prunus.inference.sampling import FPS, Sampling
from prunus.inference.turns import Seen, Turn
from prunus.inference.videos import open_videos
from prunus.io.images import open_image, readable, to_rgb
from prunus.tasks.sets import Clip

#: Names of a visual's address, and of the seconds between which a video is meant.
_ADDRESS, _START, _END = (
    ("url", "path", "video", "image"),
    ("start_time", "video_start"),
    ("end_time", "video_end"),
)
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tiff", ".webp")


def turn_of(role: str, content: str | Sequence[Mapping[str, Any]], sampling: Sampling) -> Turn:
    """One message of a chat task, with what it shows.

    Raises:
        PrunusError: audio, an unknown role or kind, or something that cannot be opened.
    """
    if role not in ("system", "user", "assistant"):
        raise PrunusError(f"a message of {shown(role)}: expected system, user or assistant")
    parts = [content] if isinstance(content, str) else [_part(one, sampling) for one in content]
    return Turn(role, parts)  # type: ignore[arg-type]


def question_of(text: str, visuals: Sequence[Any] | None, sampling: Sampling) -> Turn:
    """The question of a simple task: what it shows, and then its text.

    Raises:
        PrunusError: as of :func:`turn_of`.
    """
    return Turn("user", [*(seen_of(one, sampling) for one in visuals or ()), text])


def _part(one: Mapping[str, Any], sampling: Sampling) -> str | Seen:
    kind = one.get("type")
    if kind == "text":
        return str(one["text"])
    if kind == "image":
        return picture_of(_address(one))
    if kind == "video":
        return video_of(one, sampling)
    raise PrunusError(f"a task shows {shown(kind)}: prunus takes text, images and videos")


def seen_of(visual: Any, sampling: Sampling) -> Seen:
    """A picture, or a video: the name of a file that is no picture, frames, or a mapping."""
    if isinstance(visual, Mapping):
        kind = visual.get("type", "image" if "bytes" in visual else "video")
        return picture_of(visual) if kind == "image" else video_of(visual, sampling)
    if isinstance(visual, (str, Path)) and Path(visual).suffix.lower() not in _PICTURES:
        return video_of(visual, sampling)
    if isinstance(visual, (list, tuple)) or (isinstance(visual, np.ndarray) and visual.ndim == 4):
        return video_of(visual, sampling)
    return picture_of(visual)


def picture_of(given: Any) -> Image.Image:
    """A picture in RGB: a Pillow image, an array ``[h, w, 3]``, a file, or bytes.

    Raises:
        PrunusError: it is none of these, or cannot be read.
    """
    if isinstance(given, Mapping):
        if given.get("bytes"):
            given = given["bytes"]
        else:
            given = _address(given)
    if isinstance(given, bytes):
        with readable("a picture of the task"), Image.open(io.BytesIO(given)) as image:
            image.load()
            return to_rgb(image, image.format)
    if isinstance(given, np.ndarray) and given.ndim == 3 and given.dtype == np.uint8:
        return Image.fromarray(given)
    if isinstance(given, Image.Image):
        return given.convert("RGB")
    if isinstance(given, (str, Path)):
        return open_image(given)
    raise PrunusError(f"a task shows {shown(given)} as an image: expected a picture or a file")


def video_of(given: Any, sampling: Sampling) -> Clip:
    """The frames of a video that are shown: of a file those that ``sampling`` takes between the
    seconds that the task names; frames that the task took itself, all of them.

    Raises:
        PrunusError: it cannot be read.
    """
    if isinstance(given, Mapping):
        start, end = _first(given, _START), _first(given, _END)
        if start is not None or end is not None:
            until = None if end is None else float(end)
            sampling = replace(sampling, start=float(start or 0.0), end=until)
        given = _address(given)
        if isinstance(given, Mapping):
            return video_of(given, sampling)
    if isinstance(given, (str, Path)):
        return open_videos([Path(given)], sampling)[0]
    if isinstance(given, np.ndarray) and given.ndim == 4:
        given = list(given)
    if isinstance(given, (list, tuple)) and given:
        if len(given) == 1 and isinstance(given[0], (str, Path)):
            return open_videos([Path(given[0])], sampling)[0]
        return Clip(tuple(picture_of(frame) for frame in given), sampling.fps or FPS)
    raise PrunusError(f"a task shows {shown(given)} as a video: expected a file or frames")


def _address(one: Mapping[str, Any]) -> Any:
    found = _first(one, _ADDRESS)
    if found is None:
        raise PrunusError(f"a task shows {shown(dict(one))}: there is no {', '.join(_ADDRESS)}")
    return found


def _first(one: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((one[name] for name in names if one.get(name) is not None), None)
