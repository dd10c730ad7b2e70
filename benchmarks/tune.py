"""What papers leave open, tried once on the built-in model's training split.

    .venv/bin/python benchmarks/tune.py evoprune --output docs/data/evoprune_tuning.json
    .venv/bin/python benchmarks/tune.py mmr --output docs/data/stepwise/mmr_tuning.json

Questions about fresh scenes with *training* digits; the evaluation set is never looked at. Of
EvoPrune all combinations of K, lambda, tau and metric are tried with the attention protection on,
of MMR the weight of relevance; the rest stays at its defaults. What was chosen is told in
docs/evoprune.md and docs/stepwise.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from rich.progress import Progress

import prunus
from prunus import MMR, EvoPrune, Method
from prunus.evaluate import evaluate
from prunus.evaluate.cells import Cell
from prunus.io.files import write_text
from prunus.results.stats import wilson
from prunus.tasks.questions import TYPES
from prunus.tasks.sets import training_questions

NEIGHBOURS, STRENGTHS, TAUS = (3, 5, 10), (0.1, 0.5, 1.0, 2.0), ("auto", 1.0)
METRICS = ("key", "hidden")
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)


def evoprune(keep: float) -> dict[str, Method]:
    """Everything that is tried of EvoPrune, by name."""
    tried: dict[str, Method] = {
        f"{metric}, plain ToMe": EvoPrune(keep=keep, metric=metric, diversity=0.0, protect=0.0)
        for metric in METRICS
    }
    for metric in METRICS:
        tried[f"{metric}, no diversity"] = EvoPrune(keep=keep, metric=metric, diversity=0.0)
    for metric, count, strength, tau in itertools.product(METRICS, NEIGHBOURS, STRENGTHS, TAUS):
        method = EvoPrune(keep=keep, metric=metric, neighbours=count, diversity=strength, tau=tau)
        tried[f"{metric}, K={count}, lambda={strength}, tau={tau}"] = method
    return tried


def mmr(keep: float) -> dict[str, Method]:
    """Everything that is tried of MMR, by name."""
    return {f"weight={weight}": MMR(keep=keep, weight=weight) for weight in WEIGHTS}


METHODS: dict[str, Callable[[float], dict[str, Method]]] = {"evoprune": evoprune, "mmr": mmr}


def main() -> None:
    """Run, print the best first, write all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--each", type=int, default=7, help="questions per scene")
    parser.add_argument("--keep", type=float, default=1 / 9)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    model, processor = prunus.load("tiny-llava")
    data = training_questions(args.scenes, args.each)
    tried = METHODS[args.method](args.keep)
    cells = [Cell("dense")]
    cells += [Cell(name, args.keep, None, method) for name, method in tried.items()]
    with Progress() as progress:
        task = progress.add_task("asking", total=len(cells) * len(data.queries))
        outcomes = evaluate(
            model, processor, data, cells, step=lambda done: progress.advance(task, done)
        )
    rows = []
    for cell, outcome in zip(cells, outcomes, strict=True):
        value = wilson(float(outcome.right.sum()), len(outcome.right))
        by_type = {
            kind: round(float(outcome.right[[q.type == kind for q in data.queries]].mean()), 4)
            for kind in TYPES
        }
        rows.append({"setting": cell.name, "accuracy": list(value), "by_type": by_type})
    rows[1:] = sorted(rows[1:], key=lambda row: -row["accuracy"][0])
    for row in rows:
        share, low, high = (100 * number for number in row["accuracy"])
        print(f"{row['setting']:40} {share:.1f} [{low:.1f}, {high:.1f}]")
    if args.output is not None:
        about = {
            "questions": len(data.queries),
            "keep": args.keep,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        write_text(args.output, json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
