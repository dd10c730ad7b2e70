"""Images and videos of a request, read as by every other command."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from PIL import Image

from prunus.errors import PrunusError, brief, shown
from prunus.inference.inputs import check_frames
from prunus.io.images import decode_image


def read_by_prunus(processor: Any) -> None:
    """Let ``processor`` read images that are named by an address (``data:``, ``http:``) as prunus
    does: upright, on white, in RGB, whichever decoder is installed. What cannot be read is refused,
    as is a video of more frames than the model was made for. What is no address stays as it is."""
    images = processor.image_processor
    images.fetch_images = _for_each(images.fetch_images, open_address)
    videos = getattr(processor, "video_processor", None)
    plain = getattr(videos, "fetch_videos", None)
    if videos is None or plain is None:
        return

    def counted(given: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            found = plain(given, *args, **kwargs)
        except ImportError as error:
            raise PrunusError(f"this server cannot read videos: {brief(error)}") from error
        if isinstance(given, str):
            check_frames(processor, len(found[0]))
        return found

    videos.fetch_videos = counted


def open_address(address: str) -> Image.Image:
    """The image at ``address``: ``data:image/png;base64,...``, or ``http:`` and ``https:``.

    Raises:
        PrunusError: it is neither, cannot be fetched, or is no image.
    """
    if address.startswith("data:"):
        return _decoded(address)
    if not address.startswith(("http://", "https://")):
        raise PrunusError(
            f"the image {shown(address)} is no address: give a data: URI "
            "(data:image/png;base64,...) or http(s)://; files of the server are not read"
        )
    from transformers.image_utils import httpx  # whichever of its names is installed

    try:
        answer = httpx.get(address, follow_redirects=True, timeout=30.0)
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PrunusError(
            f"the image {shown(address)} cannot be fetched: {brief(error)}"
        ) from error
    return decode_image(answer.content, shown(address))


def _decoded(address: str) -> Image.Image:
    head, comma, content = address.partition(",")
    if not comma or not head.endswith(";base64"):
        raise PrunusError(
            f"the image {shown(head)} is not in base64: write data:image/png;base64,..."
        )
    try:
        found = base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PrunusError(f"the image {shown(head)} is no base64: {brief(error)}") from error
    return decode_image(found, shown(head))


def _for_each(plain: Callable[[Any], Any], read: Callable[[str], Any]) -> Callable[[Any], Any]:
    """``plain``, and ``read`` for texts, in lists of lists as well."""

    def fetched(given: Any) -> Any:
        if isinstance(given, str):
            return read(given)
        if isinstance(given, (list, tuple)):
            return [fetched(one) for one in given]
        return plain(given)

    return fetched
