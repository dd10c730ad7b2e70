"""Pictures for a page, as few bytes as they may be."""

from __future__ import annotations

import base64
import binascii
import io
import re

from PIL import Image, UnidentifiedImageError

from prunus.errors import PrunusError, brief, shown

_DATA = re.compile(r"data:image/[a-z0-9.+-]+;base64,(?P<content>[A-Za-z0-9+/=]+)")
_QUALITY = 82
_SIDE = 152  # of a thumbnail: twice what a screen shows, for dense ones


def smaller(address: str) -> str:
    """The picture at a ``data:`` address as WebP, or as it was where that is not smaller.

    Raises:
        PrunusError: it is no picture: a page must not ask for anything outside itself.
    """
    written = _webp(_opened(address))
    return address if len(written) >= len(address) else written


def thumbnail(address: str) -> str:
    """The same, small; errors as of :func:`smaller`."""
    image = _opened(address)
    image.thumbnail((_SIDE, _SIDE))
    return _webp(image)


def _opened(address: str) -> Image.Image:
    found = _DATA.fullmatch(address)
    if found is None:
        raise PrunusError(f"a picture of the comparison is no data: address ({shown(address)})")
    try:
        content = base64.b64decode(found["content"], validate=True)
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, binascii.Error, OSError) as error:
        raise PrunusError(f"a picture of the comparison cannot be read: {brief(error)}") from error


def _webp(image: Image.Image) -> str:
    written = io.BytesIO()
    image.save(written, "WEBP", quality=_QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode("ascii")
