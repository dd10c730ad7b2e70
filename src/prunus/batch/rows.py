"""Rows to answer: JSON lines or Parquet. The driver learns where they are, workers read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError, PrunusFileError, brief, shown
from prunus.io.jsons import BOM, parse, read_bytes

#: Names of the columns that hold the text, whichever is there.
PROMPTS = ("prompt", "question")
_KINDS = ("image", "images", "video", "videos")


@dataclass(frozen=True)
class Ref:
    """Where a row is: its ``number`` in the file, from 1; its ``id``; and its place: offset and
    bytes of a line, or row group and row of a Parquet file."""

    number: int
    id: str
    at: int
    size: int


@dataclass(frozen=True)
class Bad:
    """A row that cannot be asked."""

    number: int
    id: str
    reason: str


@dataclass(frozen=True)
class Asked:
    """What a row asks: images are paths (beside the file) or the bytes of image files, videos are
    paths."""

    prompt: str
    images: Sequence[Path | bytes]
    videos: Sequence[Path]


@dataclass(frozen=True)
class Rows:
    """All rows of a file; ``digest`` of its content where some are known by their number only."""

    refs: Sequence[Ref]
    bad: Sequence[Bad]
    digest: str | None


def scan(path: Path) -> Rows:
    """Where the rows of ``path`` are.

    A row's id is its ``id`` (a text or whole number), or else its number. Lines that are no JSON
    objects, ids of another kind and ids that were there before are bad.

    Raises:
        PrunusFileError: it cannot be read.
        PrunusError: no row is in it.
    """
    seen: dict[str, int] = {}
    refs: list[Ref] = []
    bad: list[tuple[int, str, str]] = []  # number, the id that it would have, reason
    numbered = False
    found = _parquet_ids(path) if is_parquet(path) else _line_ids(path)
    for number, own, at, size in found:
        if isinstance(own, PrunusError):
            bad.append((number, str(number), str(own)))
            continue
        if own is not None and (isinstance(own, bool) or not isinstance(own, (str, int))):
            reason = f"{place(path, number)}: the id {shown(own)} is neither text nor whole number"
            bad.append((number, str(number), reason))
            continue
        numbered |= own is None
        name = str(number if own is None else own)
        if name in seen:
            reason = f"{place(path, number)}: the id {shown(name)} is that of row {seen[name]}, too"
            bad.append((number, name, reason))
            continue
        seen[name] = number
        refs.append(Ref(number, name, at, size))
    if not refs and not bad:
        raise PrunusError(f"{str(path)!r} holds no rows")
    named = [Bad(number, _free(name, number, seen), reason) for number, name, reason in bad]
    return Rows(refs, named, _digest(path) if numbered else None)


def _free(name: str, number: int, seen: dict[str, int]) -> str:
    """``name``, or one made of it that no other row has, and note it: what is refused must not take
    the place of a row that can be answered."""
    while name in seen:
        name = f"{name} (row {number})"
    seen[name] = number
    return name


def place(path: Path, number: int) -> str:
    """What a message calls a row."""
    return f"{path.name}, {'row' if is_parquet(path) else 'line'} {number}"


def is_parquet(path: Path) -> bool:
    """Whether ``path`` is a Parquet file, by its name."""
    return path.suffix.lower() in (".parquet", ".pq")


class Reader:
    """Reads single rows of the file at ``path``; of Parquet, a row group at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._group: tuple[int, Any] | None = None

    def read(self, ref: Ref) -> Asked:
        """What the row asks.

        Raises:
            PrunusError: it lacks something, or something is of a wrong kind.
            PrunusFileError: the file cannot be read.
        """
        where = place(self._path, ref.number)
        row = self._parquet(ref) if is_parquet(self._path) else parse(self._line(ref), where)
        return asked(row, where, self._path.parent)

    def _line(self, ref: Ref) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(ref.at)
                return file.read(ref.size)
        except OSError as error:
            raise PrunusFileError(f"cannot read {str(self._path)!r}: {brief(error)}") from error

    def _parquet(self, ref: Ref) -> Mapping[str, Any]:
        if self._group is None or self._group[0] != ref.at:
            with _reading(self._path) as file:
                known = [name for name in file.schema_arrow.names if name in (*PROMPTS, *_KINDS)]
                self._group = ref.at, file.read_row_group(ref.at, columns=known)
        try:
            (row,) = self._group[1].slice(ref.size, 1).to_pylist()
        except UnicodeDecodeError as error:  # Arrow checks texts no sooner
            where = place(self._path, ref.number)
            raise PrunusError(f"{where} holds a text that is no UTF-8: {brief(error)}") from error
        return {name: value for name, value in row.items() if value is not None}


def asked(row: Any, where: str, folder: Path) -> Asked:
    """What ``row`` asks, with the paths that it names beside the file, in ``folder``.

    Raises:
        PrunusError: see :meth:`Reader.read`; ``where`` starts the message.
    """
    if not isinstance(row, Mapping):
        raise PrunusError(f"{where}: expected an object with image and prompt")
    prompts = [name for name in PROMPTS if name in row]
    if len(prompts) != 1 or not isinstance(row[prompts[0]], str):
        raise PrunusError(f"{where}: expected one text, called prompt or question")
    images = [_image(one, where, folder) for one in _several(row, "image", where)]
    videos = [_path(one, where, folder, "video") for one in _several(row, "video", where)]
    if not images and not videos:
        raise PrunusError(f"{where}: nothing to look at: expected image, images, video or videos")
    return Asked(row[prompts[0]], images, videos)


def _several(row: Mapping[str, Any], kind: str, where: str) -> list[Any]:
    """What ``row`` names as ``image`` or ``images``; one or a list in either."""
    if kind in row and f"{kind}s" in row:
        raise PrunusError(f"{where}: both {kind} and {kind}s are there: give one of them")
    found = row.get(kind, row.get(f"{kind}s", []))
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _image(found: Any, where: str, folder: Path) -> Path | bytes:
    if isinstance(found, Mapping) and isinstance(found.get("bytes"), bytes):
        found = found["bytes"]  # as the datasets library stores images
    if isinstance(found, bytes):
        return found
    if isinstance(found, Mapping):
        found = found.get("path")
    return _path(found, where, folder, "image")


def _path(found: Any, where: str, folder: Path, kind: str) -> Path:
    if not isinstance(found, str) or not found:
        raise PrunusError(f"{where}: expected the name of a file as {kind}, not {shown(found)}")
    return Path(found) if kind == "video" and found.startswith("builtin:") else folder / found


_Id = tuple[int, Any, int, int]


def _line_ids(path: Path) -> Iterator[_Id]:
    """Number, id, offset and size of each line that is not blank; in the id's place, what is wrong
    with it."""
    content = read_bytes(path, "the rows in")
    offset = len(BOM) if _starts_with_bom(path) else 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if line.strip():
            yield number, _own_id(line, place(path, number)), offset, len(line)
        offset += len(line)


def _own_id(line: bytes, where: str) -> Any:
    try:
        row = parse(line, where)
    except PrunusError as error:
        return error
    if not isinstance(row, dict):
        return PrunusError(f"{where}: expected an object with image and prompt")
    return row.get("id")


def _starts_with_bom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(BOM)) == BOM


def _parquet_ids(path: Path) -> Iterator[_Id]:
    with _reading(path) as file:
        names = file.schema_arrow.names
        if not set(PROMPTS) & set(names):
            raise PrunusError(
                f"{str(path)!r} has the columns {', '.join(names)}, and none called prompt or "
                "question"
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise PrunusError(f"{str(path)!r} has two columns called {twice[0]}")
        number = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            ids: Sequence[Any] = [None] * count
            if "id" in names:
                ids = file.read_row_group(group, columns=["id"]).column("id")
            for at, own in enumerate(ids):
                number += 1
                yield number, _value(own, place(path, number)), group, at


def _value(own: Any, where: str) -> Any:
    """The value of an id in a column, or what is wrong with it."""
    try:
        return own if own is None else own.as_py()
    except UnicodeDecodeError as error:
        return PrunusError(f"{where}: its id is no UTF-8: {brief(error)}")


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """The Parquet file, open in the block.

    Raises:
        PrunusFileError: it is none, or what is read in the block is broken.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise PrunusError("Parquet files need pyarrow: pip install pyarrow") from error
    try:
        with ParquetFile(path) as file:
            yield file
    except PrunusError:
        raise
    except (OSError, pyarrow.ArrowException) as error:
        raise PrunusFileError(f"cannot read the rows in {str(path)!r}: {brief(error)}") from error


def _digest(path: Path) -> str:
    found = sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            found.update(piece)
    return found.hexdigest()
