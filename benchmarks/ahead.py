"""Compositions against the best single method that costs no more, paired: a Markdown table.

    .venv/bin/python benchmarks/ahead.py out/llava out/sizes out/videos

Each argument is the --output of a `prunus compare`. Cost is taken twice: visual tokens per layer
of the language model (what a true budget fixes), and FLOPs of everything. The best single method
is picked by the very answers that it is then compared on, of all methods, presets and budgets
there, so that the comparison leans its way. What became of it: docs/compositions.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from prunus.compare.statistics import difference

OURS = "prunus@"
CONTROLS = ("dense", "ground-truth", "blind", "other-image")
AXES = {"average": "tokens per layer", "cost_flops": "all FLOPs"}
#: What still counts as the same cost: half a token is what a true budget may be off by.
SLACK = {"average": 1.0, "cost_flops": 0.005}


def answers(folder: Path) -> dict[str, tuple[Any, Any]]:
    """By key: right answers ``[seeds, questions]`` and the images of the questions."""
    found: dict[str, dict[int, list[tuple[int, int, bool]]]] = {}
    for line in parquet.read_table(folder / "answers.parquet").to_pylist():
        seeds = found.setdefault(line["key"], {})
        seeds.setdefault(line["seed"] or 0, []).append(
            (line["question"], line["image"], line["right"])
        )
    result = {}
    for key, seeds in found.items():
        sorted_ = [sorted(rows) for rows in seeds.values()]
        right = np.array([[one[2] for one in rows] for rows in sorted_], dtype=np.float64)
        result[key] = (right, np.array([one[1] for one in sorted_[0]], dtype=np.int64))
    return result


def lines(folder: Path) -> list[str]:
    """Rows of the table for one comparison."""
    rows = [
        row
        for row in parquet.read_table(folder / "rows.parquet").to_pylist()
        if row["refused"] is None and row["meaning"] in ("true", "own")
    ]
    given, found = answers(folder), []
    for ours in (row for row in rows if row["method"].startswith(OURS)):
        for axis, title in AXES.items():
            limit = ours[axis] + SLACK[axis]
            others = [
                row
                for row in rows
                if not row["method"].startswith(OURS)
                and row["method"] not in CONTROLS
                and row[axis] is not None
                and row[axis] <= limit
            ]
            best = max(others, key=lambda row: row["accuracy_value"])
            mine, images = given[ours["key"]]
            estimate = difference(mine, given[best["key"]][0], images).estimate
            share = f"{100 * ours['asked']:.1f}" if (ours["asked"] or 2) <= 1 else ours["asked"]
            cost = "{:.1f}".format(ours[axis] * (100 if axis == "cost_flops" else 1))
            theirs = "{:.1f}".format(best[axis] * (100 if axis == "cost_flops" else 1))
            found.append(
                f"| {ours['run']} | `{ours['method']}` | {share} | {title} | {cost} "
                f"| {100 * ours['accuracy_value']:.1f} "
                f"| `{best['method']}` ({theirs}) | {100 * best['accuracy_value']:.1f} "
                f"| {100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, "
                f"{100 * estimate.high:+.1f}] |"
            )
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    print(
        "| run | composition | budget, % | equal in | its cost | right, % "
        "| best single method (its cost) | right, % | difference [95 %] |\n"
        "|---|---|---:|---|---:|---:|---|---:|---:|"
    )
    for folder in parser.parse_args().folders:
        print("\n".join(lines(folder)))


if __name__ == "__main__":
    main()
