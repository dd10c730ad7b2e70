"""From outcomes of lmms-eval to the runs of a comparison: each task is one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunus.compare.columns import DENSE, OWN, row_key
from prunus.compare.contract import Cost, Question, Row, Run
from prunus.compare.statistics import Right
from prunus.compare.verdicts import cell_key, judge
from prunus.errors import PrunusError
from prunus.evaluate.cells import Cell
from prunus.lmms.outcome import TaskOutcome, fingerprint, image_numbers
from prunus.method.budget import resolve_keep

#: From this score on an answer is marked as right; differences are of the scores themselves.
RIGHT = 0.5

Given = Mapping[str, TaskOutcome]
"""Outcomes of one task by the keys of cells."""


def make_run(model: str, given: Given, cells: Sequence[Cell], meaning: str) -> Run:
    """The run of one task; all of ``cells`` were asked it.

    Raises:
        PrunusError: they were not asked the same questions.
    """
    dense = given[DENSE]
    asked = fingerprint(dense["samples"])
    for cell in cells:
        if fingerprint(given[cell.key]["samples"]) != asked:
            raise PrunusError(
                f"{dense['task']}: {cell.key} was not asked the same questions as the dense model"
            )
    images = np.array(image_numbers(dense["samples"]))
    rows: dict[str, Row] = {}
    scores: dict[str, Right] = {}
    for key, own in _by_row(cells, meaning).items():
        outcomes = [given[cell.key] for cell in own]
        rows[key] = _row(key, own, outcomes)
        if rows[key]["refused"] is None:
            scores[key] = np.array([[one["score"] for one in each["samples"]] for each in outcomes])
    if rows[DENSE]["refused"] is not None:
        raise PrunusError(f"the unmodified model cannot be asked: {rows[DENSE]['refused']}")
    judge(rows, scores, images, [one["type"] for one in dense["samples"]], None)
    first = rows.pop(DENSE)
    fraction = any(not np.isin(one, (0.0, 1.0)).all() for one in scores.values())
    run = Run(
        id=f"{model.rstrip('/').rpartition('/')[2]}/{dense['task']}",
        model=model,
        set=dense["task"],
        kind=dense["kind"],
        questions=len(dense["samples"]),
        images=len(set(images.tolist())),
        tokens=first["average"],
        types=list(dict.fromkeys(one["type"] for one in dense["samples"])),
        chance={},
        rival=None,
        dense=first,
        rows=list(rows.values()),
        questions_list=[
            Question(image=int(image), type=one["type"], text=one["text"], answer=one["answer"])
            for one, image in zip(dense["samples"], images, strict=True)
        ],
        answers={
            _cell_key(cell, meaning): [one["given"] for one in given[cell.key]["samples"]]
            for cell in cells
        },
        right={
            _cell_key(cell, meaning): "".join(
                "01"[one["score"] >= RIGHT] for one in given[cell.key]["samples"]
            )
            for cell in cells
        },
    )
    if fraction:
        run["scores"] = {
            _cell_key(cell, meaning): [one["score"] for one in given[cell.key]["samples"]]
            for cell in cells
        }
    return run


def meaning_of(cell: Cell, meaning: str) -> str:
    """What the budget of a cell counts."""
    return OWN if cell.keep is None else meaning


def _cell_key(cell: Cell, meaning: str) -> str:
    return cell_key(row_key(cell, meaning_of(cell, meaning)), cell.seed)


def _by_row(cells: Sequence[Cell], meaning: str) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(row_key(cell, meaning_of(cell, meaning)), []).append(cell)
    return found


def _row(key: str, cells: Sequence[Cell], outcomes: Sequence[TaskOutcome]) -> Row:
    """All that a row says, but for what its answers say."""
    cell = cells[0]
    head = Row(
        key=key,
        method=cell.name,
        meaning=OWN if key == DENSE else key.split("|")[-2],
        asked=None if cell.keep is None else float(cell.keep),
        nominal=None,
        refused=None,
    )
    sums = [one["sums"] for one in outcomes if one["sums"] is not None]
    if len(sums) < len(outcomes):
        told = [why for one in outcomes for why in one["refused"].values()]
        head["refused"] = f"every question was refused: {told[0]}"
        return head
    if cell.keep is not None:
        head["nominal"] = resolve_keep(cell.keep, round(_mean(sums, "original")))
    return Row(
        key=head["key"],
        method=head["method"],
        meaning=head["meaning"],
        asked=head["asked"],
        nominal=head["nominal"],
        refused=None,
        average=_mean(sums, "average"),
        kept=_mean(sums, "kept"),
        resident=_mean(sums, "resident"),
        per_layer=_layers(sums),
        cost=Cost(
            llm_flops=_ratio(sums, "llm_flops"),
            flops=_ratio(sums, "flops"),
            kv=_ratio(sums, "kv"),
            time=None,
        ),
        seeds=[one.seed for one in cells if one.seed is not None],
        metrics={**metrics(outcomes)},
    )


def metrics(outcomes: Sequence[TaskOutcome]) -> dict[str, float]:
    """What the task reports itself, seeds averaged, and medians of seconds over all samples."""
    names = dict.fromkeys(name for one in outcomes for name in one["metrics"])
    found = {
        name: float(np.mean([one["metrics"][name] for one in outcomes if name in one["metrics"]]))
        for name in names
    }
    first = [time for one in outcomes for time in one["ttft"]]
    last = [time for one in outcomes for time in one["e2e"]]
    if first:
        found["seconds to first token"] = float(np.median(first))
    if last:
        found["seconds to end"] = float(np.median(last))
    return found


def _mean(sums: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(sum(one[name] for one in sums) / sum(one["samples"] for one in sums))


def _layers(sums: Sequence[Mapping[str, Any]]) -> list[float]:
    total = np.sum([one["per_layer"] for one in sums], axis=0)
    return [float(one) for one in total / sum(one["samples"] for one in sums)]


def _ratio(sums: Sequence[Mapping[str, Any]], name: str) -> float | None:
    if any(one[name] is None for one in sums):
        return None
    whole = sum(one[f"dense_{name}"] for one in sums)
    return float(sum(one[name] for one in sums) / whole) if whole else None
