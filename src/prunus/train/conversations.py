"""LLaVA's training format: dialogues about images, as in ``llava_v1_5_mix665k.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError
from prunus.io.jsons import lines, parse, read_bytes
from prunus.tasks.faults import Faults
from prunus.tasks.sets import EvalSet, Query, find_image, opener

_PLACE = "<image>"
_WHAT = "the data in"


def is_conversations(path: Path) -> bool:
    """Whether a file of records is in this format: a JSON list, or lines of which the first that is
    an object has ``conversations``.

    Raises:
        PrunusFileError: the file cannot be read.
    """
    if path.suffix.lower() == ".json":
        return True
    for place, line in lines(path, _WHAT):
        try:
            record = parse(line, place)
        except PrunusError:
            continue  # whoever reads the file says so, with the number of the line
        if isinstance(record, dict):
            return "conversations" in record
    return False


def load_conversations(path: Path, faults: Faults | None = None) -> tuple[EvalSet, Counter[str]]:
    """Every question and the answer that follows it, as an example of its own: without the turns
    before. Images are paths relative to the file.

    Args:
        path: the file.
        faults: what becomes of records that cannot be used; default: the first one is raised.

    Returns:
        The questions, and what was left out: how many of which kind.

    Raises:
        PrunusError: an unreadable file, a record in another form, a missing image, or nothing left.
    """
    faults = faults or Faults()
    numbers: dict[Path, int] = {}
    places: list[str] = []
    queries: list[Query] = []
    left_out: Counter[str] = Counter()
    for place, content in _records(path):
        try:
            record = _record(content, place)
            pairs = _pairs(record, place)
            image = record.get("image")
            if image is None or (isinstance(image, list) and len(image) > 1):
                left_out[
                    f"records with{'out an image' if image is None else ' several images'}"
                ] += 1
                continue
            [name] = image if isinstance(image, list) and image else [image]
            file = find_image(path.parent, name, place)
        except PrunusError as error:
            faults.take(error)
            continue
        if file not in numbers:
            numbers[file] = len(numbers)
            places.append(place)
        if not pairs:
            left_out["records without a question and its answer"] += 1
        queries += [Query(numbers[file], *pair, "all", place=place) for pair in pairs]
    if not queries:
        told = ", ".join(f"{count} {kind}" for kind, count in left_out.items()) or "it is empty"
        told = faults.found[0] if faults.found else told
        raise PrunusError(f"{str(path)!r} holds no question about an image ({told})")
    images = tuple(opener(*both) for both in zip(numbers, places, strict=True))
    scenes = (None,) * len(images)
    return EvalSet(path.stem, tuple(queries), images, scenes, {}), left_out


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Each record of the file, parsed or (of a file of lines) not yet, and its place in words."""
    if path.suffix.lower() != ".json":
        yield from lines(path, _WHAT)
        return
    rows = parse(read_bytes(path, _WHAT), path.name)
    if not isinstance(rows, list):
        raise PrunusError(f"{path.name}: expected a list of records, as LLaVA's data have it")
    for at, row in enumerate(rows, start=1):
        yield f"{path.name}, record {at}", row


def _record(content: Any, place: str) -> dict[str, Any]:
    row = parse(content, place) if isinstance(content, bytes) else content
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
        raise PrunusError(f'{place}: expected an object with "conversations", and an "image"')
    return row


def _pairs(record: dict[str, Any], place: str) -> list[tuple[str, str]]:
    """Questions and the answers that follow them, without the placeholder of the image."""
    turns = []
    for turn in record["conversations"]:
        said = turn.get("value") if isinstance(turn, dict) else None
        if not isinstance(said, str) or not isinstance(turn.get("from"), str):
            raise PrunusError(f'{place}: a turn must have the texts "from" and "value"')
        turns.append((turn["from"], said.replace(_PLACE, "").strip()))
    return [
        (question, answer)
        for (asks, question), (answers, answer) in pairwise(turns)
        if (asks, answers) == ("human", "gpt") and question and answer
    ]
