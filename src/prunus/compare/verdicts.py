"""What answers that were right or wrong say of rows: accuracies, differences, corrections.

They follow from the marks of a run alone, so a comparison that was written is judged as one that is
being made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from prunus.compare.columns import DENSE
from prunus.compare.contract import Against, Interval, Row, Run
from prunus.compare.statistics import Right, difference, holm, share, stacked
from prunus.errors import PrunusFileError
from prunus.evaluate.cells import BLIND, GROUND_TRUTH, OTHER
from prunus.results.stats import Estimate

#: What no correction counts: they are no methods.
CONTROLS = (GROUND_TRUTH, BLIND, OTHER)

#: The method that draws lots, with which all are compared.
LOTS = "random"


def judge(
    rows: Mapping[str, Row],
    right: Mapping[str, Right],
    images: NDArray[np.int64],
    types: Sequence[str],
    rival: str | None,
) -> None:
    """Fill in what the answers say of ``rows`` (by their keys, the dense one among them): of all
    that are not refused.

    Args:
        rows: each with its head.
        right: ``[seeds, questions]`` of each that is not refused, by the same keys.
        images, types: ``[questions]``: which image each is about, and what it asks for.
        rival: a method that all others are compared with, too.
    """
    kinds = np.array(types)
    for key, row in rows.items():
        if row["refused"] is None:
            mark = right[key].mean(axis=0)
            row["per_seed"] = [float(one) for one in right[key].mean(axis=1)]
            row["accuracy"] = _plain(share(mark, images))
            row["by_type"] = {
                kind: _plain(share(mark[kinds == kind], images[kinds == kind]))
                for kind in dict.fromkeys(types)
            }
            row["against"] = _against(key, row, right, images, rival)
    correct(list(rows.values()))


def renewed(run: Run, rival: str | None) -> Run:
    """``run`` with its rows judged anew from its marks, and compared with ``rival`` if it has it.

    Raises:
        PrunusFileError: a row has no marks, or not one for each question.
    """
    rows: dict[str, Row] = {}
    right: dict[str, Right] = {}
    for row in (run["dense"], *run["rows"]):
        key = row["key"]
        rows[key] = row.copy()
        if row["refused"] is None:
            marks = [run["right"].get(cell, "") for cell in cells_of(row)]
            if not all(len(one) == len(run["questions_list"]) > 0 for one in marks):
                raise PrunusFileError(
                    f"{run['id']}: {key} has no mark for each of the {run['questions']} questions: "
                    "make the comparison anew with prunus compare"
                )
            right[key] = stacked([[sign == "1" for sign in one] for one in marks])
            if "scores" in run:
                right[key] = np.array([run["scores"][cell] for cell in cells_of(row)])
    images = np.array([one["image"] for one in run["questions_list"]])
    judge(rows, right, images, [one["type"] for one in run["questions_list"]], rival)
    dense = rows.pop(run["dense"]["key"])
    there = any(row["method"] == rival for row in rows.values())
    return Run(
        **{**run, "rival": rival if there else None, "dense": dense, "rows": [*rows.values()]}
    )


def cells_of(row: Row) -> list[str]:
    """Keys of the answers of ``row``: its own, with each seed behind it if it draws lots."""
    return [cell_key(row["key"], seed) for seed in row["seeds"]] or [row["key"]]


def cell_key(key: str, seed: int | None) -> str:
    """What the answers of one seed of a row are called."""
    return key if seed is None else f"{key}#{seed}"


def _plain(estimate: Estimate) -> Interval:
    return Interval(value=estimate.value, low=estimate.low, high=estimate.high)


def _against(
    key: str,
    row: Row,
    right: Mapping[str, Right],
    images: NDArray[np.int64],
    rival: str | None,
) -> dict[str, Against]:
    """The differences to the dense model, and to random choice and the rival at the same budget."""
    if key == DENSE:
        return {}
    others = {DENSE: DENSE}
    if row["asked"] is not None:
        for name in (LOTS, rival):
            other = f"{name}|{row['meaning']}|{key.rpartition('|')[2]}"
            if name is not None and name != row["method"] and other in right:
                others[name] = other
    found: dict[str, Against] = {}
    for name, other in others.items():
        one = difference(right[key], right[other], images)
        found[name] = Against(
            **_plain(one.estimate),
            p=one.p,
            p_corrected=None,
            lost=one.flips.lost,
            won=one.flips.won,
        )
    return found


def correct(rows: Sequence[Row]) -> None:
    """Holm's correction over all methods (not controls) at one budget and meaning, for each of what
    they are compared with."""
    families: dict[tuple[str, str, str], dict[str, Against]] = {}
    for row in rows:
        if row["refused"] is None and row["method"] not in (*CONTROLS, DENSE):
            for name, against in row["against"].items():
                budget = row["key"].rpartition("|")[2]
                family = families.setdefault((row["meaning"], budget, name), {})
                family[row["key"]] = against
    for family in families.values():
        corrected = holm({key: one["p"] for key, one in family.items()})
        for key, one in family.items():
            one["p_corrected"] = corrected[key]
