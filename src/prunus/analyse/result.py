"""What an analysis hands over: tables and pictures; and how they are written to a folder."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from prunus.analyse.plots import Drawing, save
from prunus.io.claim import BRIEFLY, claim
from prunus.io.files import replacing_all, write_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """``rows`` that share their columns, written to ``stem.csv``; ``caption`` says in one sentence
    what was measured on how many inputs."""

    stem: str
    caption: str
    rows: list[Row]


@dataclass(frozen=True)
class Picture:
    """A drawing, written to ``stem.png``; ``caption`` as of a table."""

    stem: str
    caption: str
    drawing: Drawing


@dataclass(frozen=True)
class Verdict:
    """The plain answer that an analysis comes to: one ``word`` (or few), and the ``text`` of a
    sentence or two that says what it rests on."""

    word: str
    text: str


@dataclass(frozen=True)
class Result:
    """One analysis.

    Attributes:
        name: its name on the command line, and that of its JSON file.
        title: the same in words.
        facts: what the tables say, one plain sentence each.
        notes: what was left out of it, and why.
        verdict: what it comes to, if it comes to one thing.
    """

    name: str
    title: str
    facts: list[str]
    tables: list[Table]
    pictures: list[Picture]
    notes: Sequence[str] = ()
    verdict: Verdict | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain JSON values; numbers that do not exist (NaN,
        infinity) are None."""
        return {
            "name": self.name,
            "title": self.title,
            "facts": list(self.facts),
            "notes": list(self.notes),
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "tables": {
                table.stem: {"caption": table.caption, "rows": [plain(row) for row in table.rows]}
                for table in self.tables
            },
            "pictures": {picture.stem: picture.caption for picture in self.pictures},
        }


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: six significant digits, None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def write(folder: Path, result: Result, settings: Mapping[str, Any]) -> list[Path]:
    """Write ``NAME.json``, tables and pictures of one analysis, all or none; paths in that order.

    Args:
        folder: made if it is missing.
        result: the analysis.
        settings: what it was made with, written into the JSON file.

    Raises:
        PrunusFileError: the folder cannot be written.
        PrunusStateError: another run writes into it.
    """
    paths = [folder / f"{result.name}.json"]
    paths += [folder / f"{table.stem}.csv" for table in result.tables]
    paths += [folder / f"{picture.stem}.png" for picture in result.pictures]
    contents = [_compact({"settings": plain(settings), **result.as_dict()})]
    contents += [_csv(table.rows) for table in result.tables]
    with claim(folder, BRIEFLY), replacing_all(paths) as partials:
        for partial, text in zip(partials, contents, strict=False):
            partial.write_bytes(text.encode("utf-8"))
        for partial, picture in zip(partials[len(contents) :], result.pictures, strict=True):
            save(picture.drawing, partial)
    return paths


def write_index(folder: Path, results: Sequence[Result], title: str) -> Path:
    """Write ``index.md``: facts, pictures and tables of all ``results`` under ``title``, a text
    that says what was measured on what."""
    path = folder / "index.md"
    with claim(folder, BRIEFLY):
        write_text(path, _index(results, title))
    return path


def _csv(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain(row) for row in rows)
    return text.getvalue()


def _compact(found: Mapping[str, Any]) -> str:
    """JSON with one line per row of a table: readable in a diff, and not long."""
    tables = found["tables"]
    shell = json.dumps({**found, "tables": None}, indent=1, ensure_ascii=False, allow_nan=False)
    parts = []
    for stem, table in tables.items():
        rows = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in table["rows"])
        caption = json.dumps(table["caption"], ensure_ascii=False)
        parts.append(f'  {json.dumps(stem)}: {{"caption": {caption}, "rows": [\n    {rows}\n  ]}}')
    joined = ",\n".join(parts)
    return shell.replace('"tables": null', f'"tables": {{\n{joined}\n }}', 1) + "\n"


def _index(results: Sequence[Result], title: str) -> str:
    parts = [f"# What happens inside the model\n\n{title}\n"]
    for result in results:
        lines = [f"## {result.title}\n"]
        lines += [f"* {fact}" for fact in result.facts]
        lines += [f"* Left out: {note}" for note in result.notes]
        if result.verdict is not None:
            lines.append(f"\n**Verdict: {result.verdict.text}**")
        lines.append("")
        for picture in result.pictures:
            lines.append(f"![{picture.stem}]({picture.stem}.png)\n\n*{picture.caption}*\n")
        lines.append(f"* [{result.name}.json]({result.name}.json): all of this as data")
        lines += [
            f"* [{table.stem}.csv]({table.stem}.csv): {table.caption}" for table in result.tables
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
