"""Reads a comparison that was written, and refuses one in which anything is damaged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.compare.columns import DENSE, OWN
from prunus.compare.contract import FORMAT, Comparison, MadeApart, Picture, Row, Run, Shown
from prunus.errors import PrunusFileError, shown
from prunus.io.forms import misfit
from prunus.io.jsons import parse, read_bytes

#: Its name in the folder of a comparison.
COMPARISON = "comparison.json"
#: What a row of answers need not have.
_EXTRA = {"metrics"}


def place_of(path: Path) -> Path:
    """The file of a comparison: ``path``, or the one in the folder ``path``."""
    return path / COMPARISON if path.is_dir() else path


def read_comparison(path: Path) -> Comparison:
    """What :func:`~prunus.compare.output.write_comparison` wrote: the file, or its folder.

    Raises:
        PrunusFileError: it cannot be read, is something else, or something in it is damaged; says
            where.
    """
    place = place_of(path)
    found = parse(read_bytes(place, "the comparison"), repr(str(place)))
    return checked(found, str(place))


def checked(found: Any, name: str) -> Comparison:
    """``found`` if it is a comparison and whole; ``name`` is that of its file.

    Raises:
        PrunusFileError: it is not; says what is wrong, and where.
    """
    if not isinstance(found, dict) or not {"format", "runs"} <= set(found):
        raise PrunusFileError(f"{name!r} is no comparison: prunus compare writes one")
    if found["format"] != FORMAT:
        raise PrunusFileError(
            f"{name!r} has format {shown(found['format'])}, and this prunus reads {FORMAT}: make "
            "it anew with prunus compare"
        )
    wrong = misfit(found, Comparison) or next(_contradictions(found), None)
    if wrong is not None:
        raise PrunusFileError(
            f"the comparison {name!r} is damaged: {wrong}: make it anew with prunus compare (what "
            "its store has is not asked again), or take a copy"
        )
    whole: Comparison = found  # type: ignore[assignment]
    return whole


def _contradictions(whole: Mapping[str, Any]) -> Iterator[str]:
    """What is of the right form, but cannot be; only looked for where the form is right."""
    if "apart" in whole["made"] and (wrong := misfit(whole["made"], MadeApart, "made")):
        yield wrong
    for made in whole["made"].get("apart", [whole["made"]]):
        rounds = made["settings"].get("rounds", 0)
        if type(rounds) is not int:
            yield f"the number of rounds is {shown(rounds)}, and has to be a whole number"
    if not whole["runs"]:
        yield "it has no runs"
    runs: dict[str, Run] = {}
    for number, run in enumerate(whole["runs"]):
        if run["id"] in runs:
            yield f"two runs are called {run['id']!r}"
        runs[run["id"]] = run
        yield from (f"runs[{number}]: {why}" for why in _of_run(run))
    for number, picture in enumerate(whole["pictures"]):
        yield from (f"pictures[{number}]: {why}" for why in _of_picture(picture, runs))


def _of_run(run: Run) -> Iterator[str]:
    asked = len(run["questions_list"])
    if not asked:
        yield "questions_list is empty"
    if any(one["image"] < 0 for one in run["questions_list"]):
        yield "a question has a negative image"
    keys: set[str] = set()
    for row in (run["dense"], *run["rows"]):
        if row["key"] in keys:
            yield f"two rows have the key {row['key']!r}"
        keys.add(row["key"])
        yield from (f"row {row['key']!r}: {why}" for why in _of_row(row))
    if run["dense"]["key"] != DENSE or run["dense"]["refused"] is not None:
        yield f"dense is no row {DENSE!r} with answers"
    if DENSE not in run["right"]:
        yield f"right has no {DENSE!r}"
    for name in ("right", "answers", "scores"):
        cells: Mapping[str, Sequence[Any]] = run.get(name, {})  # type: ignore[assignment]
        for cell, values in cells.items():
            yield from _of_cell(f"{name}[{shown(cell)}]", cell, keys, len(values), asked)
            if name == "right" and set(values) - set("01"):
                yield f"right[{shown(cell)}] has other signs than 0 and 1"
    if "scores" in run and (absent := [one for one in run["right"] if one not in run["scores"]]):
        yield f"scores has no {absent[0]!r}"
    if any(not image.isdecimal() for image in run.get("thumbnails", {})):
        yield "thumbnails has a key that is no number of an image"


def _of_row(row: Row) -> Iterator[str]:
    if row["meaning"] not in (OWN, "true", "nominal"):
        yield f"meaning is {shown(row['meaning'])}, and has to be true, nominal or own"
    if row["refused"] is not None:
        return
    for name in sorted(Row.__annotations__.keys() - _EXTRA - row.keys()):
        yield f"it has no {name!r}, and is not refused"
    if len(set(row.get("seeds", []))) != len(row.get("seeds", [])):
        yield "seeds has one twice"


def _of_cell(place: str, cell: str, keys: Collection[str], count: int, asked: int) -> Iterator[str]:
    """Whether values of a cell are of a row that there is, one for each question."""
    key, _, seed = cell.rpartition("#")
    if cell not in keys and not (key in keys and seed.isdecimal()):
        yield f"{place} is of no row"
    if count != asked:
        yield f"{place} has {count} values for {asked} questions"


def _of_picture(picture: Picture, runs: Mapping[str, Run]) -> Iterator[str]:
    run = runs.get(picture["run"])
    if run is None:
        yield f"there is no run {shown(picture['run'])}"
        return
    if not 0 <= picture["question"] < len(run["questions_list"]):
        yield f"{run['id']} has no question {picture['question']}"
    sizes: list[tuple[str, Sequence[float], int]] = [("size", picture["size"], 2)]
    sizes += [("grid", picture["grid"] or [1, 1, 1], 3)]
    sizes += [("a cell", cell, 5) for cell in picture["cells"]]
    for name, values, count in sizes:
        if len(values) != count:
            yield f"{name} has {len(values)} numbers, not {count}"
    keys = {row["key"] for row in run["rows"]}
    for key, one in picture["shown"].items():
        if key not in keys:
            yield f"{run['id']} has no row {shown(key)}"
        yield from (f"shown[{shown(key)}]: {why}" for why in _of_shown(one, len(picture["cells"])))


def _of_shown(one: Shown, total: int) -> Iterator[str]:
    if not len(one["kept"]) == len(one["layers"]) == len(one["labels"]):
        yield "kept, layers and labels are not of the same stages"
    if any(not 0 <= token < total for stage in one["kept"] for token in stage):
        yield f"a kept token is none of the {total}"
    for name in ("scores", "into"):
        values: Sequence[Any] | None = one[name]  # type: ignore[literal-required]
        if values is not None and len(values) != total:
            yield f"{name} has {len(values)} values for {total} tokens"
    if any(not -1 <= token < total for token in one["into"] or []):
        yield f"into names none of the {total} tokens"
