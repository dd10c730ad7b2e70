"""LLaVA's training format: dialogues about images, as in ``llava_v1_5_mix665k.json``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError
from prunus.evaluate.data import EvalSet, Query, opener

_PLACE = "<image>"


def is_conversations(path: Path) -> bool:
    """Whether a file of records is in this format: a JSON list, or lines whose first has
    ``conversations``.

    Raises:
        PrunusError: the file cannot be read.
    """
    if path.suffix.lower() == ".json":
        return True
    with _reading(path), path.open(encoding="utf-8") as lines:
        first = next((line for line in lines if line.strip()), "")
    try:
        record = json.loads(first)
    except json.JSONDecodeError:
        return False  # whoever reads the file says so, with the number of the line
    return isinstance(record, dict) and "conversations" in record


def load_conversations(path: Path) -> tuple[EvalSet, Counter[str]]:
    """Every question and the answer that follows it, as an example of its own: without the turns
    before. Images are paths relative to the file.

    Returns:
        The questions, and what was left out: how many of which kind.

    Raises:
        PrunusError: an unreadable file, a record in another form, a missing image, or nothing left.
    """
    numbers: dict[Path, int] = {}
    queries: list[Query] = []
    left_out: Counter[str] = Counter()
    for place, record in _records(path):
        turns = _turns(record, place)
        image = record.get("image")
        if image is None:
            left_out["records without an image"] += 1
            continue
        if isinstance(image, list) and len(image) > 1:
            left_out["records with several images"] += 1
            continue
        [name] = image if isinstance(image, list) and image else [image]
        if not isinstance(name, str) or not (path.parent / name).is_file():
            raise PrunusError(f"{place}: no such image file: {name!r} (beside {path.name})")
        number = numbers.setdefault(path.parent / name, len(numbers))
        pairs = [
            Query(number, question, answer, "all")
            for (asks, question), (answers, answer) in pairwise(turns)
            if (asks, answers) == ("human", "gpt") and question and answer
        ]
        if not pairs:
            left_out["records without a question and its answer"] += 1
        queries += pairs
    if not queries:
        told = ", ".join(f"{count} {kind}" for kind, count in left_out.items()) or "it is empty"
        raise PrunusError(f"{str(path)!r} holds no question about an image ({told})")
    images = tuple(opener(image) for image in numbers)
    scenes = (None,) * len(images)
    return EvalSet(path.stem, tuple(queries), images, scenes, {}), left_out


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each record of the file, and its place in words."""
    with _reading(path):
        text = path.read_text(encoding="utf-8")
    if path.suffix.lower() == ".json":
        rows = _parse(text, path.name)
        if not isinstance(rows, list):
            raise PrunusError(f"{path.name}: expected a list of records, as LLaVA's data have it")
        found = [(f"{path.name}, record {at}", row) for at, row in enumerate(rows, start=1)]
    else:
        found = [
            (place, _parse(line, place))
            for at, line in enumerate(text.splitlines(), start=1)
            if line.strip()
            for place in [f"{path.name}, line {at}"]
        ]
    for place, row in found:
        if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
            raise PrunusError(f'{place}: expected an object with "conversations", and an "image"')
        yield place, row


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PrunusError(f"{place} is no JSON: {error}") from error


def _turns(record: dict[str, Any], place: str) -> list[tuple[str, str]]:
    """Who speaks, and what they say without the placeholder of the image."""
    turns = []
    for turn in record["conversations"]:
        said = turn.get("value") if isinstance(turn, dict) else None
        if not isinstance(said, str) or not isinstance(turn.get("from"), str):
            raise PrunusError(f'{place}: a turn must have the texts "from" and "value"')
        turns.append((turn["from"], said.replace(_PLACE, "").strip()))
    return turns


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise PrunusError(f"cannot read the data in {str(path)!r}: {error}") from error
