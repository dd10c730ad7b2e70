"""The folder of a run: answers in parts, refused rows with their reason, and what is done already.

There is one writer, the driver. A part appears in one step, and a row that is in one is not asked
again: so that each row is there once, whenever the run was stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from prunus.batch.answerer import Outcome
from prunus.errors import PrunusError, PrunusFileError, PrunusStateError, brief, shown
from prunus.io.files import append_line, replacing, write_text
from prunus.io.forms import misfit
from prunus.io.jsons import lines, parse, read_bytes

Format = Literal["parquet", "jsonl"]
FORMATS: tuple[Format, ...] = ("parquet", "jsonl")
#: Columns of the answers, in their order.
COLUMNS = ("id", "number", "answer", "new_tokens", "visual_tokens", "kept", "average")
_PERIOD = 30.0  # seconds between parts, at most
_SETTINGS, _REFUSED = "batch.json", "refused.jsonl"
_ANEW = "move it away (its rows are then asked again), or choose another folder"


class _Named(TypedDict):
    """What is read of a row."""

    id: str


class _Settings(TypedDict):
    settings: dict[str, Any]


class _Written(_Settings, total=False):
    """What is in the file of settings."""

    runs: list[dict[str, Any]]


class Ledger:
    """What is done in ``folder``, and what comes in addition.

    Attributes:
        answered, refused: ids of rows that are done, those of earlier runs among them.
    """

    def __init__(
        self,
        folder: Path,
        kind: Format,
        part_rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._kind, self._most, self._clock = folder, kind, part_rows, clock
        if kind == "parquet":
            _pyarrow()  # before anything is asked
        parts = sorted(self._folder.glob(f"answers-*.{kind}"))
        self.answered = {one for part in parts for one in _ids(part)}
        self._next = 1 + max((_number(part) for part in parts), default=-1)
        self.refused = {one["id"] for one in self._mended()}
        self._answers: list[Outcome] = []
        self._reasons: list[Outcome] = []
        self._written = clock()

    @property
    def done(self) -> set[str]:
        """Ids of the rows that are not asked again."""
        return self.answered | self.refused

    def ask_refused_again(self) -> None:
        """Forget which rows were refused."""
        self.refused = set()
        (self._folder / _REFUSED).unlink(missing_ok=True)

    def take(self, found: Iterable[Outcome]) -> None:
        """Note what became of rows; those that are known are left as they are."""
        for one in found:
            if one["id"] in self.answered or one["id"] in self.refused:
                continue
            if "reason" in one:
                self.refused.add(one["id"])
                self._reasons.append(one)
            else:
                self.answered.add(one["id"])
                self._answers.append(one)
        waiting = len(self._answers) + len(self._reasons)
        if waiting >= self._most or self._clock() - self._written > _PERIOD:
            self.flush()

    def flush(self) -> None:
        """Write what has not been written.

        Raises:
            PrunusFileError: it cannot be written.
        """
        self._written = self._clock()
        if self._answers:
            path = self._folder / f"answers-{self._next:06}.{self._kind}"
            with replacing(path) as partial:
                _write(partial, self._kind, self._answers)
            self._next += 1
            self._answers = []
        if self._reasons:
            text = "\n".join(json.dumps(one, ensure_ascii=False) for one in self._reasons)
            append_line(self._folder / _REFUSED, text)
            self._reasons = []

    def _mended(self) -> list[_Named]:
        """The refused rows; a last line that was cut off is taken away, and its row asked again."""
        path = self._folder / _REFUSED
        if not path.exists():
            return []
        with path.open("rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
        return [_row(line, place, path) for place, line in lines(path, "the refused rows in")]


def settle(folder: Path, settings: dict[str, Any]) -> None:
    """Write the ``settings`` of a run into its folder, or find them there.

    Raises:
        PrunusStateError: answers of a run with other settings are in it.
    """
    path = folder / _SETTINGS
    written = sorted(one.name for one in (*folder.glob("answers-*"), *folder.glob(_REFUSED)))
    if written and not path.exists():
        raise PrunusStateError(
            f"{str(folder)!r} holds {written[0]} and no {_SETTINGS}: choose another folder"
        )
    if not written:  # a run that could not begin binds nobody
        write_text(path, json.dumps({"settings": settings}, indent=2) + "\n")
        return
    before = _written(path)["settings"]
    now = json.loads(json.dumps(settings))
    other = [name for name in now if before.get(name) != now[name]]
    if other:
        told = "; ".join(
            f"{name} {shown(before.get(name))}, now {shown(now[name])}" for name in other
        )
        raise PrunusStateError(
            f"{str(folder)!r} holds answers of a run with other settings ({told}): choose another "
            "folder, or give the same settings to go on"
        )


def finish(folder: Path, totals: dict[str, Any]) -> None:
    """Add what a run did to its settings."""
    path = folder / _SETTINGS
    known = _written(path)
    whole = {**known, "runs": [*known.get("runs", []), totals]}
    write_text(path, json.dumps(whole, indent=2) + "\n")


def _written(path: Path) -> _Written:
    """What :func:`settle` and :func:`finish` wrote.

    Raises:
        PrunusFileError: it cannot be read, or is damaged.
    """
    found = parse(read_bytes(path, "the settings of a run"), str(path))
    if (wrong := misfit(found, _Written)) is not None:
        raise PrunusFileError(f"{str(path)!r} is damaged: {wrong}: {_ANEW}")
    whole: _Written = found
    return whole


def _row(line: bytes, place: str, path: Path) -> _Named:
    """A line of a file of rows.

    Raises:
        PrunusFileError: it is damaged.
    """
    found = parse(line, f"{str(path.parent)!r}, {place}")
    if (wrong := misfit(found, _Named)) is not None:
        raise PrunusFileError(f"{str(path)!r} is damaged: {place}: {wrong}: {_ANEW}")
    row: _Named = found
    return row


def _number(part: Path) -> int:
    try:
        return int(part.stem.removeprefix("answers-"))
    except ValueError as error:
        raise PrunusStateError(
            f"{str(part)!r} was not written by prunus: choose another folder"
        ) from error


def _ids(part: Path) -> Sequence[str]:
    if part.suffix == ".jsonl":
        return [_row(line, place, part)["id"] for place, line in lines(part, "the answers in")]
    pyarrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(part, columns=["id"])
    except (OSError, pyarrow.ArrowException) as error:
        raise PrunusFileError(
            f"cannot read the answers in {str(part)!r}: {brief(error)}: {_ANEW}"
        ) from error
    found: list[Any] = table.column("id").to_pylist() if "id" in table.column_names else [None]
    if (wrong := misfit(found, list[str], "id")) is not None:
        raise PrunusFileError(f"{str(part)!r} is damaged: {wrong}: {_ANEW}")
    return found


def _write(path: Path, kind: Format, answers: Sequence[Outcome]) -> None:
    if kind == "jsonl":
        rows = [{name: one[name] for name in COLUMNS} for one in answers]
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        path.write_text(text, encoding="utf-8", newline="\n")
        return
    pyarrow, parquet = _pyarrow()
    kinds = {
        "id": pyarrow.string(),
        "answer": pyarrow.string(),
        "average": pyarrow.float64(),
    }
    columns = {
        name: pyarrow.array([one[name] for one in answers], kinds.get(name, pyarrow.int64()))
        for name in COLUMNS
    }
    parquet.write_table(pyarrow.table(columns), os.fspath(path))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise PrunusError(
            "Parquet files need pyarrow: pip install pyarrow, or write --format jsonl"
        ) from error
    return pyarrow, parquet
