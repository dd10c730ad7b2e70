"""Images of a request, read as by every other command."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from PIL import Image

from prunus.errors import PrunusError, brief, shown
from prunus.io.images import decode_image


def read_images(processor: Any) -> None:
    """Let ``processor`` read images that are named by an address (``data:``, ``http:``) as prunus
    does: upright, on white, in RGB, whichever decoder is installed. What cannot be read is refused.
    What is no address stays as it is."""
    images = processor.image_processor
    images.fetch_images = _for_each(images.fetch_images, open_address)


def open_address(address: str) -> Image.Image:
    """The image at ``address``: ``data:image/png;base64,...``, or ``http:`` and ``https:``.

    Raises:
        PrunusError: it is neither, cannot be fetched, or is no image.
    """
    content, name = content_of(address, "image", "data:image/png;base64,...")
    return decode_image(content, name)


def content_of(address: str, kind: str, example: str) -> tuple[bytes, str]:
    """The bytes at ``address``, and what to call it.

    Raises:
        PrunusError: it is no address of a ``kind`` such as ``example``, or cannot be fetched.
    """
    if address.startswith("data:"):
        return _decoded(address, kind, example)
    if not address.startswith(("http://", "https://")):
        raise PrunusError(
            f"the {kind} {shown(address)} is no address: give a data: URI ({example}) or "
            "http(s)://; files of the server are not read"
        )
    from transformers.image_utils import httpx  # whichever of its names is installed

    try:
        answer = httpx.get(address, follow_redirects=True, timeout=30.0)
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PrunusError(
            f"the {kind} {shown(address)} cannot be fetched: {brief(error)}"
        ) from error
    return answer.content, shown(address)


def _decoded(address: str, kind: str, example: str) -> tuple[bytes, str]:
    head, comma, content = address.partition(",")
    if not comma or not head.endswith(";base64"):
        raise PrunusError(f"the {kind} {shown(head)} is not in base64: write {example}")
    try:
        found = base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PrunusError(f"the {kind} {shown(head)} is no base64: {brief(error)}") from error
    return found, shown(head)


def _for_each(plain: Callable[[Any], Any], read: Callable[[str], Any]) -> Callable[[Any], Any]:
    """``plain``, and ``read`` for texts, in lists of lists as well."""

    def fetched(given: Any) -> Any:
        if isinstance(given, str):
            return read(given)
        if isinstance(given, (list, tuple)):
            return [fetched(one) for one in given]
        return plain(given)

    return fetched
