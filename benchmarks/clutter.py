r"""How many tokens adaptive Stepwise keeps, question by question, against what the scene holds.

    .venv/bin/python benchmarks/clutter.py --output docs/data/stepwise/clutter.json \
        --figure docs/img/clutter.png

One prefill for every question of the built-in evaluation set. Clutter is the number of objects, or
the number of visual tokens with any ink. Spearman's and Pearson's correlation with a 95 % interval
(bootstrap over scenes, which share their questions' clutter).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

import prunus
from prunus.inference.prompts import render
from prunus.io.files import write_text
from prunus.tasks.scenes import object_mask
from prunus.tasks.sets import load_builtin_set
from prunus.viz.png import write_figure

_RESAMPLES = 1000


def count_kept(model: Any, processor: Any, bias: float, limit: int | None) -> list[dict[str, Any]]:
    """One row per question: its scene, type, tokens kept, objects, tokens with ink."""
    data = load_builtin_set().first(limit)
    by_image: dict[int, list[int]] = defaultdict(list)
    for number, query in enumerate(data.queries):
        by_image[query.image].append(number)
    rows = []
    method = prunus.Stepwise(bias=bias)
    with torch.inference_mode():
        for image, numbers in track(by_image.items(), "scenes"):
            scene, picture = data.scenes[image], data.images[image]()
            prompts = [render(processor, data.queries[n].text, ["image"]) for n in numbers]
            inputs = processor(
                images=[picture] * len(numbers), text=prompts, return_tensors="pt", padding=True
            )
            with prunus.prune(model, method) as run:
                model(**inputs, logits_to_keep=1)
            for number, kept in zip(numbers, run.trace[0].kept, strict=True):
                query = data.queries[number]
                rows.append(
                    {
                        "scene": image,
                        "type": query.type,
                        "kept": len(kept[0]),
                        "objects": len(scene.objects),
                        "asked": len(query.asked),
                        "ink": int(object_mask(scene).any(0).sum()),
                    }
                )
    return rows


def ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks, ties shared."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[where]


def correlation(rows: list[dict[str, Any]], name: str) -> dict[str, list[float]]:
    """Spearman's and Pearson's correlation of ``kept`` with ``name``: value, low, high."""
    scenes = np.array([row["scene"] for row in rows])
    pairs = np.array([[row["kept"], row[name]] for row in rows], dtype=float)
    members = [np.flatnonzero(scenes == scene) for scene in np.unique(scenes)]
    rng = np.random.default_rng(0)
    draws = [
        np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        for _ in range(_RESAMPLES)
    ]
    found = {}
    for kind, change in (("spearman", ranks), ("pearson", lambda values: values)):

        def value(own: np.ndarray, change: Any = change) -> float:
            return float(np.corrcoef(change(own[:, 0]), change(own[:, 1]))[0, 1])

        low, high = np.quantile([value(pairs[draw]) for draw in draws], [0.025, 0.975])
        found[kind] = [round(x, 3) for x in (value(pairs), float(low), float(high))]
    return found


def draw(rows: list[dict[str, Any]], spearman: list[float], path: Path) -> None:
    """Kept tokens against objects (boxes) and against the question's type (boxes)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    counts = sorted({row["objects"] for row in rows})
    left.boxplot([[r["kept"] for r in rows if r["objects"] == n] for n in counts], showfliers=False)
    left.set_xticks(range(1, len(counts) + 1), [str(n) for n in counts])
    left.set_xlabel("objects in the scene")
    left.set_ylabel("visual tokens kept of 576")
    left.set_title(f"Spearman {spearman[0]:.2f} [{spearman[1]:.2f}, {spearman[2]:.2f}]")
    types = sorted({row["type"] for row in rows})
    right.boxplot([[r["kept"] for r in rows if r["type"] == t] for t in types], showfliers=False)
    right.set_xticks(range(1, len(types) + 1), types, rotation=30)
    right.set_xlabel("type of question")
    right.set_title(f"mean {np.mean([row['kept'] for row in rows]):.1f} tokens")
    figure.tight_layout()
    figure.set_dpi(120)
    write_figure(figure, path)


def main() -> None:
    """Count, correlate, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bias", type=float, default=0.0, help="added to STOP's logit")
    parser.add_argument("--limit", type=int, help="questions")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    model, processor = prunus.load("tiny-llava")
    rows = count_kept(model, processor, args.bias, args.limit)
    found = {name: correlation(rows, name) for name in ("objects", "ink", "asked")}
    kept = [row["kept"] for row in rows]
    summary = {
        "questions": len(rows),
        "bias": args.bias,
        "kept": {
            "mean": round(float(np.mean(kept)), 2),
            "quantiles": np.quantile(kept, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist(),
        },
        "by type": {
            t: round(float(np.mean([r["kept"] for r in rows if r["type"] == t])), 1)
            for t in sorted({row["type"] for row in rows})
        },
        "correlation": found,
    }
    print(json.dumps(summary, indent=1))
    if args.output is not None:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        write_text(args.output, json.dumps({**summary, "rows": columns}) + "\n")
    if args.figure is not None:
        draw(rows, found["objects"]["spearman"], args.figure)


if __name__ == "__main__":
    main()
