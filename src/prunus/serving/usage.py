"""What was kept of a request's visual tokens, beside what the server says of its tokens."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

#: In ``usage``: OpenAI's clients give what they do not know as further attributes.
KEY = "prunus"

Tokens = Mapping[str, Any]


def with_counts(response: Any, tokens: Tokens) -> None:
    """Write ``tokens`` of a report into the ``usage`` of a whole answer in JSON; other answers stay
    as they are."""
    found = json.loads(response.body)
    if _add(found, tokens):
        response.body = response.render(found)
        response.headers["content-length"] = str(len(response.body))


async def counted(
    pieces: AsyncGenerator[str, None], tokens: Callable[[], Tokens | None]
) -> AsyncGenerator[str, None]:
    """The same stream, whose event with the ``usage`` says it as well."""
    try:
        async for piece in pieces:
            known = tokens()
            yield piece if known is None or '"usage"' not in piece else _told(piece, known)
    finally:
        await pieces.aclose()  # a client that left: generating ends


def _told(piece: str, tokens: Tokens) -> str:
    """One piece of a stream: lines, of which those of data are JSON."""
    lines = piece.split("\n")
    for place, line in enumerate(lines):
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            if _add(event, tokens):
                lines[place] = f"data: {json.dumps(event)}"
    return "\n".join(lines)


def _add(found: Any, tokens: Tokens) -> bool:
    """Write into the ``usage`` of an answer, or of the response that an event is about, if there
    is one."""
    for place in (found, found.get("response")):
        if isinstance(place, dict) and isinstance(place.get("usage"), dict):
            place["usage"][KEY] = {
                "visual_tokens": round(tokens["original"]),
                "kept": round(tokens["kept"]),
                "average": float(tokens["average"]),
            }
            return True
    return False
