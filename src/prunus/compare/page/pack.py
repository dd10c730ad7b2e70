"""The data of the page, made small: bits for yes and no, one byte for a score.

``scripts/unpack.js`` reads what is written here.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prunus.compare.contract import Comparison, Picture, PublishedTable, Run, Shown
from prunus.compare.page.pictures import smaller, thumbnail
from prunus.io.jsons import finite

#: The byte of a token without a score.
NO_SCORE = 255
_DIGITS = 5  # significant ones of a number
#: Visual tokens of models whose papers give budgets as counts, by how their names begin.
_TOKENS = {"LLaVA-1.5": 576, "LLaVA-NeXT": 2880, "Video-LLaVA": 2048}


def packed(comparison: Comparison) -> dict[str, Any]:
    """What the scripts are given: the comparison, with answers only where they differ from the
    dense model's in being right, each picture once, and tokens as bits."""
    numbers: dict[str, int] = {}
    for picture in comparison["pictures"]:
        numbers.setdefault(picture["png"], len(numbers))
    return {
        **{key: _short(comparison[key]) for key in ("title", "made", "notes", "methods")},  # type: ignore[literal-required]
        "runs": [_run(run) for run in comparison["runs"]],
        "images": [smaller(png) for png in numbers],
        "pictures": [_picture(one, numbers[one["png"]]) for one in comparison["pictures"]],
        "published": [_table(table) for table in comparison["published"]],
    }


def _table(table: PublishedTable) -> dict[str, Any]:
    """With the visual tokens of its model where they are known: a budget of 64 is a share then."""
    tokens = next((n for name, n in _TOKENS.items() if table["model"].startswith(name)), None)
    return {"tokens": tokens, **_short(table)}


def _run(run: Run) -> dict[str, Any]:
    kinds = {kind: number for number, kind in enumerate(run["types"])}
    words: dict[str, int] = {}
    for question in run["questions_list"]:
        kinds.setdefault(question["type"], len(kinds))
    own = run["dense"]["key"]
    dense = run["right"].get(own)
    told: dict[str, list[int]] = {}
    for key, right in run["right"].items():
        if key in run["answers"] and own in run["answers"] and dense is not None:
            changed = [i for i, (a, b) in enumerate(zip(dense, right, strict=True)) if a != b]
            for name, into in ((key, key), (own, f"{key}<dense")):
                given = run["answers"][name]
                told[into] = [words.setdefault(given[i], len(words)) for i in changed]
    left = ("questions_list", "answers", "right", "thumbnails")
    small = run.get("thumbnails") or {}
    return {
        **{key: _short(value) for key, value in run.items() if key not in left},
        "kinds": list(kinds),
        "asked": [
            [one["image"], kinds[one["type"]], one["text"], one["answer"]]
            for one in run["questions_list"]
        ],
        "right": {
            key: bits((i for i, sign in enumerate(right) if sign == "1"), len(right))
            for key, right in run["right"].items()
        },
        "words": list(words),
        "told": told,
        "thumbnails": {image: thumbnail(address) for image, address in small.items()},
    }


def _picture(picture: Picture, number: int) -> dict[str, Any]:
    total = len(picture["cells"])
    left = ("png", "shown")
    return {
        **{key: _short(value) for key, value in picture.items() if key not in left},
        "picture": number,
        "shown": {key: _shown(one, total) for key, one in picture["shown"].items()},
    }


def _shown(shown: Shown, total: int) -> dict[str, Any]:
    made: dict[str, Any] = dict(shown)
    made["kept"] = [bits(stage, total) for stage in shown["kept"]]
    made["scores"] = None if shown["scores"] is None else levels(shown["scores"])
    if shown["into"] is not None:
        made["into"] = _text(struct.pack(f"<{total}h", *shown["into"]))
    return made


def bits(chosen: Iterable[int], total: int) -> str:
    """``total`` bits in base64, the ``chosen`` ones set; bit i is bit i % 8 of byte i // 8."""
    made = bytearray((total + 7) // 8)
    for index in chosen:
        made[index >> 3] |= 1 << (index & 7)
    return _text(bytes(made))


def levels(scores: Sequence[float | None]) -> dict[str, Any] | None:
    """Scores as bytes from the lowest (0) to the highest (254); None where there is no score."""
    known = [score for score in finite(scores) if score is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    step = (high - low) / (NO_SCORE - 1) or 1.0
    made = bytes(
        NO_SCORE if score is None else round((score - low) / step) for score in finite(scores)
    )
    return {"low": _short(low), "high": _short(high), "bytes": _text(made)}


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _short(value: Any) -> Any:
    """``value`` with fewer digits, and null where a number is none."""
    if isinstance(value, Mapping):
        return {str(name): _short(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(one) for one in value]
    if isinstance(value, float):
        if finite(value) is None:
            return None
        return int(value) if value.is_integer() else float(f"{value:.{_DIGITS}g}")
    return value
