"""Writes an evaluation: everything measured as JSON, the tables as Markdown."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from prunus.evaluate.properties import discrimination
from prunus.evaluate.runner import Outcome
from prunus.evaluate.summary import summarise
from prunus.evaluate.table import accuracy_table, evidence_table, property_table, type_table
from prunus.io.claim import BRIEFLY, claim
from prunus.io.files import replacing_all
from prunus.tasks.sets import EvalSet
from prunus.versions import __version__

RESULTS, TABLES, ANSWERS = "accuracy.json", "accuracy.md", "answers.jsonl"


def results(
    data: EvalSet, outcomes: Sequence[Outcome], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything as plain JSON values.

    Keys: ``settings``; ``versions``; ``set`` (name, number of questions and images, and for each
    question its ``image`` and ``type``, so that flips and intervals can be computed anew);
    ``rows`` (see :class:`~prunus.evaluate.summary.Row`; shares in 0..1); ``properties``;
    ``right``: for each cell a text of ``0`` and ``1``, one sign per question.
    """
    rows = summarise(data, outcomes)
    return {
        "settings": dict(settings),
        "versions": versions(),
        "set": {
            "name": data.name,
            "questions": len(data.queries),
            "images": len({query.image for query in data.queries}),
            "image": [query.image for query in data.queries],
            "type": [query.type for query in data.queries],
        },
        "rows": [_plain(row) for row in rows],
        "properties": [dataclasses.asdict(one) for one in discrimination(data, rows)],
        "right": {o.cell.key: "".join(np.where(o.right, "1", "0").tolist()) for o in outcomes},
    }


def tables(data: EvalSet, outcomes: Sequence[Outcome]) -> str:
    """All tables, each under a heading."""
    rows = summarise(data, outcomes)
    parts = [
        ("Accuracy against budget", accuracy_table(rows)),
        ("Accuracy by question type, % [95 %]", type_table(rows)),
        ("What was kept of the objects", evidence_table(rows)),
        ("Does the task discriminate?", property_table(discrimination(data, rows))),
    ]
    return "\n".join(f"## {title}\n\n{table}" for title, table in parts if table)


def write_results(
    folder: Path, data: EvalSet, outcomes: Sequence[Outcome], settings: Mapping[str, Any]
) -> list[Path]:
    """Write ``accuracy.json``, ``accuracy.md`` and ``answers.jsonl`` (every answer, one question
    per line), all of them or none; ``folder`` is made if it is missing.

    Raises:
        PrunusFileError: the folder cannot be written.
        PrunusStateError: another run writes into it.
    """
    paths = [folder / name for name in (RESULTS, TABLES, ANSWERS)]
    texts = [
        _compact(results(data, outcomes, settings)) + "\n",
        tables(data, outcomes),
        "".join(f"{line}\n" for line in _answers(data, outcomes)),
    ]
    with claim(folder, BRIEFLY), replacing_all(paths) as partials:
        for partial, text in zip(partials, texts, strict=True):
            partial.write_bytes(text.encode("utf-8"))
    return paths


def _answers(data: EvalSet, outcomes: Sequence[Outcome]) -> Iterator[str]:
    for number, query in enumerate(data.queries):
        line = {
            "image": query.image,
            "type": query.type,
            "question": query.text,
            "answer": query.answer,
            "given": {outcome.cell.key: outcome.answers[number] for outcome in outcomes},
        }
        yield json.dumps(line, ensure_ascii=False)


def versions() -> dict[str, str]:
    """What the numbers were measured with."""
    return {
        "prunus": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _plain(row: Any) -> dict[str, Any]:
    values = dataclasses.asdict(row)
    values["accuracy"] = row.accuracy._asdict()
    values["by_type"] = {kind: share._asdict() for kind, share in row.by_type.items()}
    values["difference"] = None if row.difference is None else row.difference._asdict()
    values["changed"] = None if row.changed is None else row.changed._asdict()
    return values


def _compact(found: Mapping[str, Any]) -> str:
    """One line per entry of the top level and per row: readable in a diff, and not long."""
    lines = []
    for key, value in found.items():
        if isinstance(value, list):
            inner = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value)
            lines.append(f"{json.dumps(key)}: [\n  {inner}\n ]")
        elif key == "right":
            inner = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f"{json.dumps(key)}: {{\n  {inner}\n }}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n " + ",\n ".join(lines) + "\n}"
