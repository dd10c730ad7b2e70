"""JSON that people wrote or machines broke: one line that says where, whatever is wrong with it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prunus.errors import PrunusFileError, brief, shown

#: What some editors begin UTF-8 files with.
BOM = b"\xef\xbb\xbf"


def read_bytes(path: str | Path, what: str) -> bytes:
    """The content of a file without a byte order mark; ``what`` it is, in a message.

    Raises:
        PrunusFileError: it cannot be read.
    """
    try:
        return Path(path).read_bytes().removeprefix(BOM)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = getattr(error, "strerror", None) or brief(error)  # without the name a second time
        raise PrunusFileError(f"cannot read {what} {shown(str(path))}: {why}") from error


def lines(path: Path, what: str) -> Iterator[tuple[str, bytes]]:
    """The lines of a file that are not blank, each with its place: ``"name, line 3"``.

    Only line feeds and carriage returns end a line: JSON may hold the other signs that do so in
    Python.
    """
    for number, line in enumerate(read_bytes(path, what).splitlines(), start=1):
        if line.strip():
            yield f"{path.name}, line {number}", line


def parse(content: bytes, place: str) -> Any:
    """The JSON value in ``content``.

    Raises:
        PrunusFileError: no UTF-8, no JSON, nested too deeply, or a text with half of a surrogate
            pair in it, which is no text; ``place`` starts the message.
    """
    try:
        text = content.decode("utf-8")
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise PrunusFileError(f"{place} is no UTF-8 text: {brief(error)}") from error
    except RecursionError as error:
        raise PrunusFileError(f"{place} is nested too deeply for JSON") from error
    except ValueError as error:
        raise PrunusFileError(f"{place} is no JSON: {brief(error)}") from error
    if "\\u" in text and (broken := _surrogate(value)) is not None:
        raise PrunusFileError(f"{place}: {shown(broken)} holds half of a surrogate pair")
    return value


def finite(value: Any) -> Any:
    """``value`` with null in the place of NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _surrogate(value: Any) -> str | None:
    """The first text in ``value`` that cannot be written as UTF-8."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo += [*one, *one.values()]
        elif isinstance(one, list):
            todo += one
        elif isinstance(one, str):
            try:
                one.encode("utf-8")
            except UnicodeEncodeError:
                return one
    return None
