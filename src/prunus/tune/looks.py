"""Who looked at which held-out questions: a file beside the questions, a line for each look.

A bound that was chosen after its questions were seen is none. So each look is noted before it is
taken, and a later one at the same questions is told, and pays for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prunus.errors import PrunusFileError
from prunus.io.claim import claim_file
from prunus.io.files import append_line, check_place, write_bytes
from prunus.io.forms import misfit
from prunus.io.jsons import lines, parse, read_bytes
from prunus.tune.bounds import LEVEL


@dataclass(frozen=True)
class Look:
    """What was asked of held-out ``questions`` (digests): the candidate ``what``, called ``name``,
    of a ``model`` (digest of its weights), when (``date``)."""

    what: str
    name: str
    model: str
    date: str
    questions: list[str]


_KINDS = {"what": str, "name": str, "model": str, "date": str, "questions": list}


@dataclass(frozen=True)
class Taken:
    """A look that may be taken: the ``earlier`` ones at any of its questions by the same model, the
    ``level`` at which its bounds hold, and whether the record was ``mended`` before (a last line
    that was cut off)."""

    earlier: list[Look]
    level: float
    mended: bool = False


def record_of(data: Path) -> Path:
    """Where looks at the questions of a file are noted."""
    return data.with_name(f"{data.name}.looks")


def check_record(data: Path) -> None:
    """Raise PrunusFileError where looks cannot be noted: before anything is asked."""
    try:
        check_place(record_of(data))
    except PrunusFileError as error:
        raise PrunusFileError(
            f"looks at held-out questions are noted beside them ({error}): copy the questions into "
            "a folder of yours"
        ) from error


def looks_at(data: Path) -> list[Look]:
    """All looks that were noted.

    Raises:
        PrunusFileError: the record cannot be read.
    """
    path = record_of(data)
    found: list[Look] = []
    if not path.exists():
        return found
    for place, line in lines(path, "the record of looks"):
        row = parse(line, place)
        whole = misfit(row, dict[str, str | list[str]]) is None
        if not whole or {name: type(row[name]) for name in row} != _KINDS:
            raise PrunusFileError(
                f"{place}: {str(path)!r} is no record of looks at held-out questions: restore it; "
                "without it nobody can say what was looked at"
            )
        found.append(Look(**row))
    return found


def take(data: Path, look: Look) -> Taken:
    """Note ``look``, unless it is there: a candidate that was asked just these questions before is
    no further look. Of several that are noted at once, one is the first.

    Returns:
        Earlier looks at any of its questions. Bounds of the first hold with 95 %, and those of each
        further one with half the error of the one before, so that all of them together hold with
        90 %, however many there are.
    """
    with claim_file(record_of(data)) as record:
        mended = _mend(record)
        earlier: list[Look] = []
        wanted = set(look.questions)
        for one in looks_at(data):
            if (one.what, one.model) == (look.what, look.model) and set(one.questions) == wanted:
                return Taken(earlier, _level(len(earlier)), mended)
            if one.model == look.model and wanted & set(one.questions):
                earlier.append(one)
        append_line(record, json.dumps(asdict(look), ensure_ascii=False))
    return Taken(earlier, _level(len(earlier)), mended)


def _mend(record: Path) -> bool:
    """Take away a last line that was cut off, and say whether there was one: who wrote it was
    killed before it looked."""
    if not record.exists():
        return False
    content = read_bytes(record, "the record of looks")
    whole = content.rfind(b"\n") + 1
    if not content[whole:].strip():
        return False
    try:
        parse(content[whole:], "the last line")
    except PrunusFileError:
        write_bytes(record, content[:whole], "the record of looks")
        return True
    return False  # only its end is missing


def overlap(look: Look, questions: Sequence[str]) -> int:
    """How many of ``questions`` it was about."""
    return len(set(look.questions) & set(questions))


def _level(earlier: int) -> float:
    return 1 - (1 - LEVEL) / float(2**earlier)
