"""What a request says, looked at before it is asked: the server of transformers leaves out what it
does not know, and the answer would be about something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunus.errors import PrunusError, shown
from prunus.inference.prompts import check_text, token_of

_TEXTS = ("text", "input_text", "output_text")
_ROLES = ("system", "developer", "user", "assistant", "tool")
#: Parts that are looked at, by the kind of data, and the key that has its address.
_SEEN = {
    "image_url": ("image", "image_url"),
    "input_image": ("image", "image_url"),
    "video_url": ("video", "video_url"),
    "input_audio": ("audio", "input_audio"),
    "audio_url": ("audio", "audio_url"),
}
_COUNTS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def check_body(body: Any, messages: bool) -> None:
    """Raise PrunusError for a request whose form is wrong; ``messages``: whether it is to have
    some."""
    if not isinstance(body, dict):
        return  # the server says so
    if messages and not (isinstance(body.get("messages"), list) and body["messages"]):
        raise PrunusError('messages: give a list, such as [{"role": "user", "content": ...}]')
    for name in _COUNTS:
        count = body.get(name)
        if count is not None and (type(count) is not int or count < 1):
            raise PrunusError(f"{name}: {shown(count)} is no number of tokens: give 1 or more")
    if body.get("n") not in (None, 1):
        raise PrunusError(f"n: {shown(body['n'])}: there is one answer to a request: leave it out")


def check_messages(messages: Sequence[Any], processor: Any) -> None:
    """Raise PrunusError for messages of which something would be left out, or put the model's own
    signs for images into the prompt."""
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise PrunusError(f"{where}: expected an object with a role of {', '.join(_ROLES)}")
        content = message.get("content")
        if isinstance(content, str):
            _check_text(content, where, processor)
        elif isinstance(content, list) and content:
            for place, part in enumerate(content):
                _check_part(part, f"{where}.content[{place}]", processor)
        elif message["role"] in ("user", "system", "developer"):
            raise PrunusError(f"{where}: it has no content: give a text, or a list of parts")


def _check_part(part: Any, where: str, processor: Any) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS:
        _check_text(part.get("text"), where, processor)
        return
    if not isinstance(kind, str) or kind not in _SEEN:
        raise PrunusError(
            f"{where}: a part of type {shown(kind)} is not known: there are {_TEXTS[0]}, "
            f"{', '.join(_SEEN)}"
        )
    what, key = _SEEN[kind]
    if not _takes(processor, what):
        raise PrunusError(f"{where}: this model takes no {what}: leave it out")
    address = part.get(key)
    address = address.get("url", address.get("data")) if isinstance(address, dict) else address
    if not isinstance(address, str):
        raise PrunusError(f'{where}: expected "{key}": {{"url": "data:...;base64,..."}}')


def _check_text(text: Any, where: str, processor: Any) -> None:
    if not isinstance(text, str):
        raise PrunusError(f"{where}: expected a text")
    try:
        text.encode()
        check_text(processor, text)
    except UnicodeEncodeError as error:
        raise PrunusError(f"{where}: {shown(text)} holds half of a surrogate pair") from error
    except PrunusError as error:
        raise PrunusError(f"{where}: {error}") from error


def _takes(processor: Any, what: str) -> bool:
    if what == "audio":
        return getattr(processor, "feature_extractor", None) is not None
    return token_of(processor, what) is not None
