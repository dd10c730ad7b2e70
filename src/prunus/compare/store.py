"""Answers that were given, on disk: each is asked once, whatever interrupts a run.

A folder with a file for each column of answers (:func:`~prunus.compare.identity.column_identity`).
Its first line says whose answers they are; each further line is a batch, with a check sum. A line
is added in one step, so what was answered before something went wrong is there; a line that is not
whole is told and asked again. One run at a time writes (:func:`prunus.io.claim.claim`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from prunus.compare.identity import digest
from prunus.errors import PrunusFileError
from prunus.io.files import append_line, make_folder, write_text
from prunus.io.forms import misfit
from prunus.io.jsons import read_bytes

FORMAT = 1
_MARK = "store.json"
_WHAT = "answers of prunus compare"
_FOLDERS = ("answers", "times", "pictures", "benchmarks")
_SPENT = "spent.jsonl"


@dataclass(frozen=True)
class Given:
    """An answer, and what its prompt cost: figures of its report by name (see
    :data:`~prunus.compare.desk.FIGURES`), None where nothing was counted."""

    text: str
    cost: Mapping[str, Any] | None


@dataclass
class Known:
    """What is known of one column: answers by the digests of their questions, and questions whose
    budget cannot be reached, with the reason."""

    given: dict[str, Given] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class Store:
    """The folder ``place``, which must be claimed while it is used.

    Attributes:
        told: what was found in it that cannot be used, a line each.

    Raises:
        PrunusFileError: the folder holds other things, or cannot be written.
    """

    def __init__(self, place: Path) -> None:
        self._place = make_folder(place)
        self.told: list[str] = []
        mark = place / _MARK
        wanted = {"what": _WHAT, "format": FORMAT}
        there = sorted(one.name for one in place.iterdir() if not one.name.startswith(".prunus"))
        if not there:
            write_text(mark, json.dumps(wanted) + "\n")
        elif _MARK not in there:
            raise PrunusFileError(
                f"{str(place)!r} is no store of answers (it holds {there[0]!r}): choose an empty "
                "or a new folder with --store"
            )
        elif _json(read_bytes(mark, "the store")) != wanted:
            raise PrunusFileError(
                f"the store {str(place)!r} has another format than this prunus writes: choose a "
                "new folder with --store"
            )
        for name in there:
            if name not in (_MARK, _SPENT, *_FOLDERS):
                self.told.append(f"{str(place / name)!r} is no part of the store: left alone")
        for name in _FOLDERS:
            make_folder(place / name)

    def known(self, identity: Mapping[str, Any]) -> Known:
        """What is stored for the column ``identity``; lines that are not whole are told, and taken
        out of its file.

        Raises:
            PrunusFileError: its file is of something else, or cannot be read.
        """
        path, found = self._path(identity), Known()
        if not os.path.lexists(path):
            return found
        head, *rest = read_bytes(path, "stored answers").split(b"\n")
        if _json(head) != _head(identity):
            raise PrunusFileError(
                f"{str(path)!r} does not begin as a file of this store does: move it away, and its "
                "answers will be asked anew"
            )
        if broken := [line for line in rest if line and _checked(line) is None]:
            self.told.append(
                f"{str(path)!r}: {len(broken)} batches are not whole; they are asked again"
            )
        whole = [line for line in rest if line and _checked(line) is not None]
        if broken or rest[-1:] != [b""]:
            write_text(path, b"\n".join([head, *whole, b""]).decode())
        for line in whole:
            batch = _checked(line) or {}
            costs = batch.get("costs", [])
            for question, (text, cost) in batch.get("given", {}).items():
                found.given[question] = Given(text, None if cost is None else costs[cost])
            found.refused |= batch.get("refused", {})
        return found

    def add(
        self,
        identity: Mapping[str, Any],
        given: Mapping[str, Given],
        refused: Mapping[str, str] | None = None,
    ) -> None:
        """Store one batch: answers, and questions that were refused.

        Raises:
            PrunusFileError: it cannot be written; what was there is unchanged.
        """
        costs: list[Mapping[str, Any]] = []
        lines: dict[str, list[Any]] = {}
        for question, one in given.items():
            if one.cost is not None and one.cost not in costs:
                costs.append(one.cost)
            lines[question] = [one.text, None if one.cost is None else costs.index(one.cost)]
        batch: dict[str, Any] = {"given": lines, "costs": costs}
        if refused:
            batch["refused"] = dict(refused)
        path = self._path(identity)
        if not path.exists():
            write_text(path, json.dumps(_head(identity), ensure_ascii=False) + "\n")
        line = json.dumps({"check": digest(batch)[:16], "batch": batch}, ensure_ascii=False)
        append_line(path, line)

    def read(self, kind: str, identity: Any) -> Any:
        """A single value of the folder ``kind`` ("times", "pictures"), None where there is none or
        it is broken, which is told."""
        path = self._place / kind / f"{digest(identity)[:32]}.json"
        if not os.path.lexists(path):
            return None
        found = _json(read_bytes(path, "stored values"))
        whole = isinstance(found, dict) and found.get("of") == digest(identity)
        if not whole or digest(found.get("value")) != found.get("check"):
            self.told.append(f"{str(path)!r} is not whole, or of something else: made anew")
            return None
        return found["value"]

    def write(self, kind: str, identity: Any, value: Any) -> None:
        """Store a plain JSON value in the folder ``kind``.

        Raises:
            PrunusFileError: it cannot be written.
        """
        whole = {"of": digest(identity), "check": digest(value), "value": value}
        path = self._place / kind / f"{digest(identity)[:32]}.json"
        write_text(path, json.dumps(whole, ensure_ascii=False) + "\n")

    def spend(self, seconds: float) -> None:
        """Note that a run took so long.

        Raises:
            PrunusFileError: it cannot be written.
        """
        append_line(self._place / _SPENT, json.dumps({"seconds": round(seconds, 3)}))

    def spent(self) -> float:
        """Seconds of all runs that were noted; lines that say nothing count nothing."""
        path = self._place / _SPENT
        if not os.path.lexists(path):
            return 0.0
        found = 0.0
        for line in read_bytes(path, "the times of runs").split(b"\n"):
            value = _json(line)
            if isinstance(value, dict) and isinstance(value.get("seconds"), (int, float)):
                found += value["seconds"]
        return found

    def _path(self, identity: Mapping[str, Any]) -> Path:
        return self._place / "answers" / f"{digest(identity)[:32]}.jsonl"


class _Batch(TypedDict, total=False):
    """Answers with the index of their cost in ``costs`` (None: it has none), by their questions."""

    given: dict[str, list[Any]]
    costs: list[dict[str, Any]]
    refused: dict[str, str]


def _head(identity: Mapping[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(json.dumps(identity))
    return {"what": _WHAT, "format": FORMAT, "of": whole}


def _json(content: bytes) -> Any:
    """The JSON value in ``content``, None where there is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _checked(line: bytes) -> dict[str, Any] | None:
    """The batch in a line, None where it is not whole."""
    found = _json(line)
    if not isinstance(found, dict) or not isinstance(found.get("batch"), dict):
        return None
    batch: dict[str, Any] = found["batch"]
    if digest(batch)[:16] != found.get("check") or misfit(batch, _Batch) is not None:
        return None
    costs = range(len(batch.get("costs", [])))
    pairs = batch.get("given", {}).values()
    whole = all(
        len(one) == 2 and type(one[0]) is str and (one[1] is None or one[1] in costs)
        for one in pairs
    )
    return batch if whole else None
