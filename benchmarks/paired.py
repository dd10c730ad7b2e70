"""Cells of several evaluations on the same questions, each compared with one of them, as Markdown.

    .venv/bin/python benchmarks/paired.py stepwise@0.1111 docs/data/stepwise_accuracy.json \
        docs/data/accuracy.json --cells stepwise-mean@0.1111,clse@0.1111,attn@0.1111

The files are what `prunus eval --output` writes. Differences are paired over questions, with
questions about one image as one group; seeds of a cell (`name#0`, `name#1` ...) are averaged.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prunus.results.stats import paired_difference, wilson


def read(
    paths: list[Path],
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64], dict[str, float]]:
    """Right answers by cell (means over seeds), the questions' images, tokens per layer by cell.

    Raises:
        ValueError: the files are about different questions.
    """
    cells: dict[str, list[NDArray[np.float64]]] = {}
    average: dict[str, float] = {}
    asked = None
    for path in paths:
        found = json.loads(path.read_text())
        own = (found["set"]["image"], found["set"]["type"])
        if asked not in (None, own):
            raise ValueError(f"{path}: other questions than {paths[0]}")
        asked = own
        fresh: dict[str, list[NDArray[np.float64]]] = {}
        for key, signs in found["right"].items():
            right = np.array([sign == "1" for sign in signs], dtype=np.float64)
            fresh.setdefault(key.split("#")[0], []).append(right)
        for row in found["rows"]:
            share = "" if row["keep"] is None else f"@{row['keep']:.4g}"
            if row["figures"]:
                average.setdefault(row["name"] + share, row["figures"]["average"])
        cells = fresh | cells  # the first file that has a cell counts
    assert asked is not None
    return {key: np.mean(rows, 0) for key, rows in cells.items()}, np.array(asked[0]), average


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cells", help="which, in this order; default: all")
    args = parser.parse_args()
    cells, images, average = read(args.files)
    names = list(cells) if args.cells is None else args.cells.split(",")
    missing = [name for name in (args.base, *names) if name not in cells]
    if missing:
        parser.error(f"no {', '.join(missing)}; there are {', '.join(cells)}")
    print(f"| cell | tokens per layer | right, % [95 %] | minus {args.base}, points [95 %] |")
    print("| --- | ---: | ---: | ---: |")
    for name in names:
        right = cells[name]
        share = [100 * x for x in wilson(float(right.sum()), len(right))]
        less = [100 * x for x in paired_difference(right, cells[args.base], images)]
        tokens = f"{average[name]:.1f}" if name in average else ""
        shares = f"{share[0]:.1f} [{share[1]:.1f}, {share[2]:.1f}]"
        own = "" if name == args.base else f"{less[0]:+.1f} [{less[1]:+.1f}, {less[2]:+.1f}]"
        print(f"| {name} | {tokens} | {shares} | {own} |")


if __name__ == "__main__":
    main()
