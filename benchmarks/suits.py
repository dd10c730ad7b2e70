"""Does the label-free verdict of ``prunus analyse spectral`` follow what happens to right answers?

    .venv/bin/python benchmarks/suits.py --output docs/data/analysis/suits.json

On both built-in models, many choices of tokens (CLSE at several pairs of layers, its ablations, its
rivals) against random ones: what is left of the dense model's first answer token, which needs no
labels, beside the share of right answers. Then how often the verdict falls which way when only a
few of the questions are asked, and how often it would between random choices alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import prunus
from prunus.analyse import Context, spread
from prunus.analyse.ablations import BUDGETS, draws, layers_of
from prunus.analyse.intervals import mean_over_images
from prunus.analyse.measure import DENSE, Measured, flat, measure
from prunus.analyse.result import plain
from prunus.analyse.suits import answers_trial, remains
from prunus.evaluate.output import versions
from prunus.io.files import write_text
from prunus.method import Method
from prunus.pruners.clse import CLSE
from prunus.pruners.uniform import Uniform
from prunus.results.stats import paired_difference
from prunus.tasks.sets import builtin_set_for, load_builtin_set

SIZES = (8, 12, 16, 20, 40, 70)
DRAWS = 300


def choices(keep: float, depth: int) -> dict[str, Method]:
    """Everything that is compared with random choices."""
    found: dict[str, Method] = {
        "CLSE": CLSE(keep),
        "hybrid": CLSE(keep, "hybrid"),
        "attention": CLSE(keep, score_type="attn"),
        "uniform": Uniform(keep),
        "SFR": CLSE(keep, score_type="residual"),
        "MMD": CLSE(keep, score_type="mean"),
        "CLSE-I": CLSE(keep, invert=True),
    }
    for layer in layers_of(depth)[1:]:
        found[f"CLSE, 0 to {layer}"] = CLSE(keep, layers=(layer,))
        before = CLSE(keep, layers=(layer,), reference=layer - 1)
        found[f"CLSE, {layer - 1} to {layer}"] = before
    return found


def some(found: Measured, rows: NDArray[np.int64]) -> Measured:
    """The same of some questions."""
    return Measured(found.success[rows], found.same[rows], found.divergence[rows], found.figures)


def words_of_few(
    keep: float, own: Measured, chances: list[Measured], rng: np.random.Generator
) -> dict[str, Any]:
    """Percent of the times that the verdict falls which way, by number of questions asked."""
    row: dict[str, Any] = {}
    for size in SIZES:
        told = {"suits": 0, "does not suit": 0}
        for _ in range(DRAWS):
            rows = rng.choice(len(own.success), size, replace=True)
            few = [some(one, rows) for one in chances]
            word = answers_trial(keep, some(own, rows), few, np.arange(size), fewest=2).word
            if word in told:
                told[word] += 1
        row[f"suits_{size}"] = 100 * told["suits"] / DRAWS
        row[f"not_{size}"] = 100 * told["does not suit"] / DRAWS
    return row


def false_alarms(chances: list[Measured], rng: np.random.Generator) -> dict[str, float]:
    """Percent of the times that an interval excludes 0 where there is no difference: one random
    choice against the others, less what they differ by over all questions."""
    first, *others = (remains(one) for one in chances)
    apart = first - np.mean(others, axis=0)
    apart -= apart.mean()
    row = {}
    for size in SIZES:
        wrong = 0
        for _ in range(DRAWS):
            few = apart[rng.choice(len(apart), size, replace=True)]
            found = mean_over_images(few, np.arange(size))
            wrong += found.low > 0 or found.high < 0
        row[f"alarms_{size}"] = 100 * wrong / DRAWS
    return row


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=140)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    choice_rows, few_rows = [], []
    for name in ("tiny-llava", "tiny-qwen"):
        model, processor = prunus.load(name)
        pool = load_builtin_set(builtin_set_for(name))
        context = Context(model, processor, spread(pool, given.questions), pool, batch=8)
        measure(context, DENSE, lambda _: None)
        for keep in BUDGETS:
            chances = [measure(context, one, lambda _: None) for one in draws(keep, 0)]
            right = np.mean([one.success for one in chances], axis=0)
            for score, method in choices(keep, context.depth).items():
                own = measure(context, (method,), lambda _: None)
                trial = answers_trial(keep, own, chances, context.groups)
                row = {"model": name, "keep": keep, "score": score, "verdict": trial.word}
                row |= flat("left", trial.ahead)
                row |= flat("right", paired_difference(own.success, right, context.groups))
                choice_rows.append(row)
                if score in ("CLSE", "attention"):
                    own_few = words_of_few(keep, own, chances, rng)
                    few_rows.append({"model": name, "keep": keep, "score": score, **own_few})
            none = false_alarms(chances, rng)
            few_rows.append({"model": name, "keep": keep, "score": "random", **none})
    pairs = np.array([(row["left"], row["right"]) for row in choice_rows])
    settings = {
        "questions": given.questions,
        "draws": DRAWS,
        "correlation": float(np.corrcoef(pairs.T)[0, 1]),
        "versions": versions(),
    }
    lines = [f' "settings": {json.dumps(plain(settings))}']
    for part, rows in {"choices": choice_rows, "few questions": few_rows}.items():
        told = ",\n  ".join(json.dumps(plain(row)) for row in rows)
        lines.append(f' "{part}": [\n  {told}\n ]')
    write_text(given.output, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
