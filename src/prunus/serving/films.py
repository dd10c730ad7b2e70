"""Videos of a request, read as by every other command."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunus.errors import PrunusError
from prunus.inference.inputs import metadata_of
from prunus.inference.sampling import Sampling
from prunus.inference.videos import Excerpt, open_videos
from prunus.serving.pictures import content_of

_EXAMPLE = "data:video/mp4;base64,..."
#: What a request could ask of a processor that chooses frames itself.
_SAMPLING = ("num_frames", "fps", "min_frames", "max_frames", "do_sample_frames")


def read_videos(processor: Any) -> None:
    """Let ``processor`` read videos that are named by an address as prunus does: the same decoder,
    and the same frames as of `prunus run`, at most as many as the model was made for. What cannot
    be read is refused. What is no address stays as it is."""
    videos = getattr(processor, "video_processor", None)
    plain = getattr(videos, "fetch_videos", None)
    if videos is None or plain is None:
        return
    most = getattr(videos, "max_frames", None)
    sampling = Sampling(most=most if isinstance(most, int) else None)

    def fetched(given: Any, sample_indices_fn: Any = None) -> Any:
        if isinstance(given, list):
            return list(zip(*(fetched(one, sample_indices_fn) for one in given), strict=True))
        if isinstance(given, str):
            return _with_metadata(open_film(given, sampling))
        return plain(given, sample_indices_fn)

    videos.fetch_videos = fetched


def open_film(address: str, sampling: Sampling) -> Excerpt:
    """Frames of the video at ``address``: ``data:video/mp4;base64,...``, or ``http:`` and
    ``https:``.

    Raises:
        PrunusError: it is neither, cannot be fetched, or is no video.
    """
    content, name = content_of(address, "video", _EXAMPLE)
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        path = Path(folder) / "video"
        path.write_bytes(content)
        try:
            return open_videos([path], sampling)[0]
        except PrunusError as error:
            raise PrunusError(str(error).replace(str(path), name)) from error


def check_wishes(wishes: Any) -> None:
    """Raise PrunusError where ``chat_template_kwargs`` of a request, or of the server, ask for
    other frames of videos."""
    if not isinstance(wishes, Mapping):
        return  # the server says what is wrong with that
    if found := [name for name in _SAMPLING if name in wishes]:
        raise PrunusError(
            f"chat_template_kwargs: {found[0]} is not listened to, because frames of videos are "
            "taken as by `prunus run` (2 per second, and fewer of a long video): leave it out, or "
            "send a shorter video"
        )


def _with_metadata(film: Excerpt) -> tuple[Any, Any]:
    """Frames ``[T, H, W, 3]``, and what a processor wants to know of time."""
    from transformers.video_utils import VideoMetadata

    frames = np.stack([np.asarray(frame) for frame in film.frames])
    return frames, VideoMetadata(**metadata_of(film))
