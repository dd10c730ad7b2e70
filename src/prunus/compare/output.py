"""Writes a comparison: one JSON object, tables for people, and tables for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.compare.contract import Comparison, Row, Run
from prunus.compare.latex import latex, wide_latex
from prunus.compare.page.build import page_of
from prunus.compare.reading import COMPARISON
from prunus.compare.tables import markdown
from prunus.errors import PrunusError
from prunus.io.claim import BRIEFLY, claim
from prunus.io.files import replacing_all
from prunus.io.jsons import finite

MARKDOWN = "table.md"
LATEX, WIDE = "table.tex", "table-wide.tex"
ANSWERS, ROWS = "answers.parquet", "rows.parquet"
PAGE = "page.html"


def needed() -> Any:
    """The module that writes Parquet, once all that a comparison is written with is there.

    Raises:
        PrunusError: something is not installed; says how it is.
    """
    try:
        import jinja2  # noqa: F401 - of the page
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise PrunusError(
            f"a comparison is written with pyarrow and Jinja, and one is missing ({error}): pip "
            "install 'prunus[compare]'"
        ) from error
    return pyarrow


def files_in(folder: Path) -> list[Path]:
    """Where :func:`write_comparison` writes into ``folder``."""
    names = (COMPARISON, MARKDOWN, LATEX, WIDE, PAGE, ANSWERS, ROWS)
    return [folder / name for name in names]


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Write everything into ``folder``: all files, or none.

    Raises:
        PrunusFileError: it cannot be written; PrunusError: something is not installed.
    """
    pyarrow = needed()
    paths = files_in(folder)
    with claim(folder, BRIEFLY), replacing_all(paths) as partials:
        partials[0].write_text(dumped(comparison), encoding="utf-8")
        partials[1].write_text(markdown(comparison), encoding="utf-8")
        partials[2].write_text(latex(comparison), encoding="utf-8")
        partials[3].write_text(wide_latex(comparison), encoding="utf-8")
        partials[4].write_text(page_of(comparison), encoding="utf-8")
        for partial, lines in zip(
            partials[5:], (answer_lines(comparison), row_lines(comparison)), strict=True
        ):
            table = pyarrow.Table.from_pylist(list(lines))
            pyarrow.parquet.write_table(table, str(partial))
    return paths


def dumped(comparison: Comparison) -> str:
    """As JSON, a line for each run, row and picture, which can be read in a diff."""
    whole = finite(comparison)
    parts = []
    for key, value in whole.items():
        if key == "runs":
            parts.append(f'"runs": [\n{_joined(map(_run_lines, value))}\n]')
        elif key in ("pictures", "published", "notes"):
            parts.append(f"{_text(key)}: [\n{_joined(map(_text, value))}\n]")
        else:
            parts.append(f"{_text(key)}: {_text(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _run_lines(run: Mapping[str, Any]) -> str:
    parts = []
    for key, value in run.items():
        if key in ("rows", "questions_list"):
            parts.append(f"{_text(key)}: [\n{_joined(map(_text, value))}\n]")
        elif key in ("answers", "right"):
            lines = (f"{_text(name)}: {_text(one)}" for name, one in value.items())
            parts.append(f"{_text(key)}: {{\n{_joined(lines)}\n}}")
        else:
            parts.append(f"{_text(key)}: {_text(value)}")
    return "{" + ",\n".join(parts) + "}"


def _joined(lines: Iterator[str] | Any) -> str:
    return ",\n".join(lines)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def answer_lines(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """A line for every answer."""
    for run in comparison["runs"]:
        rows = {row["key"]: row for row in (run["dense"], *run["rows"])}
        for cell, marks in run["right"].items():
            key, _, seed = cell.partition("#")
            texts: Sequence[str | None] = run["answers"].get(cell) or [None] * len(marks)
            asked = zip(run["questions_list"], texts, marks, strict=True)
            for number, (question, text, mark) in enumerate(asked):
                yield {
                    **_which(run, rows[key]),
                    "seed": int(seed) if seed else None,
                    "question": number,
                    "image": question["image"],
                    "type": question["type"],
                    "text": question["text"],
                    "answer": question["answer"],
                    "given": text,
                    "right": mark == "1",
                }


def row_lines(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """A line for every row, flat."""
    for run in comparison["runs"]:
        for row in (run["dense"], *run["rows"]):
            yield _which(run, row) | _flat(row)


def _which(run: Run, row: Row) -> dict[str, Any]:
    return {
        "run": run["id"],
        "model": run["model"],
        "set": run["set"],
        "key": row["key"],
        "method": row["method"],
        "meaning": row["meaning"],
        "asked": row["asked"],
    }


#: Columns of a row that are one number; those with dots are inside.
_FLAT = (
    "nominal",
    "refused",
    "average",
    "kept",
    "resident",
    "cost.llm_flops",
    "cost.flops",
    "cost.kv",
    "cost.time.median",
    "cost.time.q1",
    "cost.time.q3",
    "accuracy.value",
    "accuracy.low",
    "accuracy.high",
)
_AGAINST = ("value", "low", "high", "p", "p_corrected", "lost", "won")


def _flat(row: Row) -> dict[str, Any]:
    found = {name.replace(".", "_"): _inside(row, name) for name in _FLAT}
    against = row.get("against", {})
    rival = next((name for name in against if name not in ("dense", "random")), None)
    for column, name in (("dense", "dense"), ("random", "random"), ("rival", rival)):
        own: Mapping[str, Any] = against.get(name or "", {})  # a name may have dots in it
        for part in _AGAINST:
            found[f"{column}_{part}"] = own.get(part)
    return found | {"rival": rival, "seeds": row.get("seeds"), "per_seed": row.get("per_seed")}


def _inside(value: Any, name: str) -> Any:
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
