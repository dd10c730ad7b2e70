"""A comparison made of random numbers and real pictures: about as large as a true one.

Run as ``python -m tests.compare.sample comparison.json`` to look at its page.
"""

from __future__ import annotations

import base64
import io
import json
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter

from prunus.compare.contract import FORMAT, Comparison, Facts, Interval, Picture, Row, Run, Shown
from prunus.tasks.sets import Clip, EvalSet, load_builtin_set

BUDGETS = (1 / 3, 2 / 9, 1 / 9)
LAYERS = 12
RIVAL = "divprune"

#: name: how good, where (-1: in the tower), what else it is
METHODS: dict[str, tuple[float, int, str]] = {
    "clse": (0.50, 1, "ours"),
    "evoprune": (0.80, -1, "ours merges"),
    "visipruner": (0.86, 3, "ours question own"),
    "stepwise": (0.84, 0, "ours question"),
    "prunus@lean": (0.90, 0, "ours composition merges"),
    "prunus@balanced": (0.93, 0, "ours composition merges question"),
    "prunus@careful": (0.97, 0, "ours composition question"),
    "random": (0.45, 1, "control"),
    "uniform": (0.50, 1, "control"),
    "pooling": (0.42, 0, "control merges"),
    "ground-truth": (1.02, 0, "control unusable"),
    "blind": (0.0, 0, "control unusable own"),
    "knockout": (0.75, 0, "own"),
    "divprune": (0.78, 0, ""),
    "fastv": (0.55, 1, "question"),
    "pyramiddrop": (0.60, 3, "question"),
    "sparsevlm": (0.62, 1, "question merges"),
    "visionzip": (0.70, 0, "merges"),
    "tome": (0.58, -1, "merges"),
    "dart": (0.66, 1, "question"),
    "mmr": (0.72, 0, "question"),
    "one-shot": (0.74, 0, "question"),
    "prumerge": (0.57, 0, "merges"),
    "prumerge@plus": (0.64, 0, "merges"),
    "hired": (0.61, 0, ""),
    "cdpruner": (0.77, 0, "question"),
    "vispruner": (0.71, 0, ""),
    "cls-attention": (0.63, 0, ""),
    "v2drop": (0.59, 3, ""),
    "fitprune": (0.67, 1, "question"),
    "holov": (0.69, 0, ""),
    "vscan": (0.73, 0, "question merges"),
    "evs": (0.44, 0, ""),
    "vidcom2": (0.68, 0, ""),
    "duet-vlm": (0.75, 0, "question merges"),
}


def interval(value: float, spread: float) -> Interval:
    """``value`` with what is ``spread`` below and above it."""
    return {
        "value": round(value, 4),
        "low": round(max(value - spread, -1.0), 4),
        "high": round(min(value + spread, 1.0), 4),
    }


def facts(name: str) -> Facts:
    """What the sample says about a method."""
    _, place, what = METHODS[name]
    return {
        "summary": f"what {name} does, in a line",
        "paper": ""
        if "unusable" in what or "composition" in what
        else "control"
        if "control" in what
        else "arXiv 2503.02175 (CVPR 2025)",
        "place": "vision tower"
        if place < 0
        else "before the language model"
        if place == 0
        else f"decoder layers {place}",
        "question": "question" in what,
        "count": "own" if "own" in what else "schedule" if place == 3 else "asked",
        "merges": "merges" in what,
        "ours": "ours" in what,
        "control": "control" in what,
        "composition": "composition" in what,
    }


def counts(name: str, meaning: str, asked: float, tokens: float) -> list[float]:
    """Visual tokens that each layer sees."""
    _, place, _ = METHODS[name]
    kept = asked * tokens
    if place <= 0:
        return [round(kept, 1)] * LAYERS
    if place == 3:
        steps = (1.0, 0.5, 0.2) if meaning == "nominal" else (asked * 2.2, asked * 0.6, asked * 0.2)
        return [round(tokens * min(1.0, share), 1) for share in steps for _ in range(LAYERS // 3)]
    if meaning == "true":
        kept = max(1.0, (kept * LAYERS - place * tokens) / (LAYERS - place))
    return [tokens] * place + [round(kept, 1)] * (LAYERS - place)


def row(run: Run, name: str, meaning: str, asked: float | None, rng: random.Random) -> Row:
    """A row with plausible numbers."""
    good, place, what = METHODS[name]
    share = asked or 0.4
    head = {
        "key": f"{name}|{meaning}|" + ("" if asked is None else f"{asked:.4f}"),
        "method": name,
        "meaning": meaning,
        "asked": None if asked is None else round(asked, 4),
        "nominal": None if asked is None else round(asked * run["tokens"]),
        "refused": None,
    }
    if name == "evs" and run["kind"] == "image":
        return {**head, "refused": "EVS looks at what changed since the frame before: give videos"}  # type: ignore[typeddict-item]
    if name == "v2drop" and meaning == "true" and share < 0.2:
        return {  # type: ignore[typeddict-item]
            **head,
            "refused": "an average of 11.1 % cannot be met: three whole layers are 25 % already",
        }
    layers = counts(name, meaning, share, run["tokens"])
    if name in ("blind", "knockout"):
        layers = [0.0 if name == "blind" else run["tokens"]] * LAYERS
    average = sum(layers) / LAYERS
    ratio = average / run["tokens"]
    dense = run["dense"]["accuracy"]["value"]
    loss = (1.05 - good) * (1 - ratio) ** 2 * 0.75
    value = max(0.2, min(0.99, dense - loss + rng.gauss(0, 0.006)))
    if name == "blind":
        value = 0.41
    spread = 1.96 * math.sqrt(value * (1 - value) / run["questions"])
    tower = 0.12 if place < 0 else 0.30
    flops = tower + 0.7 * (0.1 + 0.9 * ratio) + (0.1 if "question" in what and place == 0 else 0)
    time = flops + 0.04 + rng.random() * 0.05
    made = random.Random(head["key"] + run["id"])
    against: dict[str, Any] = {}
    for other, theirs in (("dense", dense), ("random", dense - 0.3 * (1 - ratio) ** 2)):
        against[other] = _against(value - theirs, spread, run["questions"])
    if run["rival"] and name != run["rival"]:
        against[run["rival"]] = _against(value - dense + 0.2 * (1 - ratio) ** 2, spread, 560)
    return {  # type: ignore[typeddict-item]
        **head,
        "average": round(average, 2),
        "kept": layers[-1],
        "resident": round(average, 2),
        "per_layer": layers,
        "cost": {
            "llm_flops": round(0.1 + 0.9 * ratio, 4),
            "flops": round(flops, 4),
            "kv": round(0.15 + 0.85 * ratio, 4),
            "time": {
                "median": round(time, 4),
                "q1": round(time - 0.02, 4),
                "q3": round(time + 0.03, 4),
                "rounds": 21,
            },
        },
        "seeds": [0, 1, 2] if name == "random" else [0],
        "per_seed": [value],
        "accuracy": interval(value, spread),
        "by_type": {
            kind: interval(
                max(run["chance"][kind], min(0.995, value + made.gauss(0, 0.05))), spread * 2.6
            )
            for kind in run["types"]
        },
        "against": against,
    }


def _against(difference: float, spread: float, questions: int) -> dict[str, float]:
    p = math.erfc(abs(difference) / spread * 1.96 / math.sqrt(2))
    lost = questions * max(0.01, 0.03 - difference / 2)
    return {
        **interval(difference, spread),
        "p": p,
        "p_corrected": min(1.0, p * 30),
        "lost": round(lost, 1),
        "won": round(max(0.0, lost + difference * questions), 1),
    }


def dense(questions: int, types: Sequence[str], value: float, tokens: float) -> Row:
    """The unmodified model."""
    return {
        "key": "dense",
        "method": "dense",
        "meaning": "own",
        "asked": None,
        "nominal": None,
        "refused": None,
        "average": tokens,
        "kept": tokens,
        "resident": tokens,
        "per_layer": [tokens] * LAYERS,
        "cost": {
            "llm_flops": 1.0,
            "flops": 1.0,
            "kv": 1.0,
            "time": {"median": 1.0, "q1": 0.98, "q3": 1.02, "rounds": 21},
        },
        "seeds": [0],
        "per_seed": [value],
        "accuracy": interval(value, 1.96 * math.sqrt(value * (1 - value) / questions)),
        "by_type": {kind: interval(value, 0.03) for kind in types},
        "against": {},
    }


def make_run(
    model: str,
    data: EvalSet,
    tokens: float,
    value: float,
    questions: int,
    budgets: Sequence[float] = BUDGETS,
) -> Run:
    """One model on one set; whether each answer is right is drawn by lot."""
    rng = random.Random(model + data.name)
    queries = data.queries[:questions]
    types = sorted({query.type for query in queries})
    run: Run = {
        "id": f"{model}/{data.name}",
        "model": model,
        "set": data.name,
        "kind": "video" if data.clips else "image",
        "questions": len(queries),
        "images": len({query.image for query in queries}),
        "tokens": tokens,
        "types": types,
        "chance": {kind: data.chance[kind] for kind in types},
        "rival": RIVAL,
        "dense": dense(len(queries), types, value, tokens),
        "rows": [],
        "questions_list": [
            {"image": q.image, "type": q.type, "text": q.text, "answer": q.answer} for q in queries
        ],
        "answers": {},
        "right": {},
    }
    thumbs = {str(n): png_of(_first(data.seen(n))) for n in sorted({q.image for q in queries})[:9]}
    run["thumbnails"] = thumbs
    for name, (_, _, what) in METHODS.items():
        if "own" in what:
            run["rows"].append(row(run, name, "own", None, rng))
            continue
        for meaning in ("true", "nominal"):
            run["rows"] += [row(run, name, meaning, budget, rng) for budget in budgets]
    words = {kind: sorted({q.answer for q in queries if q.type == kind}) for kind in types}
    hard = [rng.random() for _ in queries]
    for one in (run["dense"], *run["rows"]):
        if one["refused"]:
            continue
        for seed in one["seeds"]:
            key = one["key"] + (f"#{seed}" if len(one["seeds"]) > 1 else "")
            value = one["accuracy"]["value"]
            right = [0.8 * h + 0.2 * rng.random() < value for h in hard]
            run["right"][key] = "".join("01"[fine] for fine in right)
            run["answers"][key] = [
                query.answer if fine else _other(words[query.type], query.answer, rng)
                for query, fine in zip(queries, right, strict=True)
            ]
    return run


def _other(words: Sequence[str], answer: str, rng: random.Random) -> str:
    return rng.choice([word for word in words if word != answer] or ["none"])


def cells(size: tuple[int, int], frames: int, patch: int) -> tuple[list[int], list[list[float]]]:
    """A grid over each frame, and the boxes of its cells."""
    columns, rows = size[0] // patch, size[1] // patch
    boxes = [
        [x * patch, y * patch, (x + 1) * patch, (y + 1) * patch, frame]
        for frame in range(frames)
        for y in range(rows)
        for x in range(columns)
    ]
    return [frames, rows, columns], boxes


def png_of(image: Image.Image) -> str:
    """A picture as a ``data:`` address."""
    written = io.BytesIO()
    image.save(written, "PNG")
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def _first(seen: Image.Image | Clip) -> Image.Image:
    return seen.frames[0] if isinstance(seen, Clip) else seen


def busy(strip: Image.Image, boxes: list[list[float]], width: int) -> list[float]:
    """How much each cell differs from its blurred surroundings."""
    sharp, soft = strip.convert("L"), strip.convert("L").filter(ImageFilter.GaussianBlur(18))
    found = []
    for left, top, right, bottom, frame in boxes:
        x, y = int((left + right) / 2 + frame * width), int((top + bottom) / 2)
        near = [
            abs(int(sharp.getpixel((x + i, y + j))) - int(soft.getpixel((x, y))))  # type: ignore[arg-type]
            for i in (-2, 2)
            for j in (-2, 2)
        ]
        found.append(sum(near) / 4 / 255)
    return found


def shown(run: Run, one: Row, base: list[float], grid: list[int], question: int) -> Shown:
    """What a row kept of a picture whose cells are ``base`` busy."""
    name = one["method"]
    good, place, what = METHODS[name]
    rng = random.Random(one["key"] + run["id"])
    scores = [good * score * 3 + (1.1 - good) * rng.random() for score in base]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    share = one["kept"] / run["tokens"]
    stages = [0.5, 0.2, share] if place == 3 else [share]
    kept = [sorted(order[: max(1, round(s * len(order)))]) for s in stages]
    columns = grid[2]

    def near(index: int) -> int:
        frame, rest = divmod(index, grid[1] * columns)
        here = [i for i in kept[-1] if i // (grid[1] * columns) == frame] or kept[-1]
        y, x = divmod(rest, columns)
        return min(
            here,
            key=lambda i: abs(i % (grid[1] * columns) // columns - y) + abs(i % columns - x),
        )

    if name == "knockout":
        kept = []
    merged = [near(i) for i in range(len(scores))] if "merges" in what else None
    key = one["key"] + (f"#{one['seeds'][0]}" if len(one["seeds"]) > 1 else "")
    layers: list[int | None] = [3, 5, 6] if place == 3 else [place if place > 0 else None]
    layers = layers[: len(kept)]
    labels = {-1: "tower block 5", 0: "before the language model"}
    return {
        "kept": kept,
        "layers": layers,
        "labels": [f"{name} " + labels.get(place, f"layer {layer}") for layer in layers],
        "scores": None if name == "pooling" else [round(score, 4) for score in scores],
        "into": merged,
        "answer": run["answers"][key][question],
        "right": run["right"][key][question] == "1",
    }


def make_picture(run: Run, data: EvalSet, question: int, patch: int) -> Picture:
    """A question with its picture and what every row kept of it."""
    query = data.queries[question]
    seen = data.seen(query.image)
    frames = list(seen.frames[::2]) if isinstance(seen, Clip) else [seen]
    width, height = frames[0].size
    strip = Image.new("RGB", (width * len(frames), height))
    for number, frame in enumerate(frames):
        strip.paste(frame, (number * width, 0))
    grid, boxes = cells((width, height), len(frames), patch)
    base = busy(strip, boxes, width)
    return {
        "run": run["id"],
        "image": query.image,
        "png": png_of(strip),
        "size": [width, height],
        "frames": len(frames),
        "grid": grid,
        "cells": boxes,
        "question": question,
        "text": query.text,
        "answer": query.answer,
        "dense": run["answers"]["dense"][question],
        "shown": {
            one["key"]: shown(run, one, base, grid, question)
            for one in run["rows"]
            if not one["refused"] and one["method"] != "blind"
        },
    }


def published() -> dict[str, Any]:
    """A table as papers print them, with what is doubtful about it."""
    shift = "SQA and POPE of this row sit one column left of where other papers have them"
    rows = [
        (192, "ToMe", (54.3, 60.5, 72.4, 65.2), [shift]),
        (192, "FastV", (52.7, 61.2, 64.8, 67.3), [shift]),
        (192, "VisionZip", (59.3, 63.0, 85.3, 68.9), []),
        (192, "DivPrune", (60.0, 62.3, 87.0, 68.7), []),
        (192, "CLSE", (61.5, 63.6, 85.1, 70.1), []),
        (64, "ToMe", (48.6, 43.7, 52.5, 50.0), []),
        (64, "FastV", (46.1, 48.0, 48.0, 51.1), ["disputed by the authors of the method"]),
        (64, "PDrop", (47.5, 58.8, 55.9, None), ["two rows circulate; the other has 41.9 GQA"]),
        (64, "DivPrune", (57.6, 59.3, 85.6, 68.3), []),
        (64, "CDPruner", (58.6, 61.0, 87.5, 68.1), []),
    ]
    names = ["GQA", "MMB", "POPE", "SQA"]
    return {
        "id": "sample",
        "title": "LLaVA-1.5-7B, as later papers report it",
        "source": "Table 1 of a paper",
        "protocol": "lmms-eval, nominal budgets",
        "model": "LLaVA-1.5-7B",
        "benchmarks": names,
        "dense": dict(zip(names, (61.9, 64.7, 85.9, 69.5), strict=True)),
        "rows": [
            {
                "budget": budget,
                "method": method,
                "values": dict(zip(names, values, strict=True)),
                "source": "A",
                "flags": flags,
            }
            for budget, method, values, flags in rows
        ],
        "flags": ["all rows are reports of later papers, not of those who made the method"],
    }


def costs() -> dict[str, Any]:
    """A table in which some columns are no scores."""
    names = ["GQA", "prefill ms", "FLOPs %", "KV MB"]
    return {
        "id": "costs",
        "title": "What it costs",
        "source": "Table 5 of a paper",
        "protocol": "one GPU, not stated further",
        "model": "Some-VL-7B",
        "benchmarks": names,
        "dense": dict(zip(names, (60.0, 41.9, 100.0, 320.0), strict=True)),
        "rows": [
            {
                "budget": 0.111,
                "method": "DivPrune",
                "values": dict(zip(names, (57.0, 20.0, 30.0, None), strict=True)),
                "source": "B",
                "flags": [],
            }
        ],
        "flags": [],
    }


def make_comparison(
    questions: int = 300, pictures: int = 4, budgets: Sequence[float] = BUDGETS
) -> Comparison:
    """Two models on three sets."""
    plan = (
        ("tiny-llava", "scenes", 144.0, 0.955, 16),
        ("tiny-qwen", "sizes", 190.0, 0.931, 16),
        ("tiny-qwen", "videos", 144.0, 0.902, 16),
    )
    runs, seen = [], []
    for model, name, tokens, value, patch in plan:
        data = load_builtin_set(name)
        run = make_run(model, data, tokens, value, min(questions, len(data.queries)), budgets)
        runs.append(run)
        step = max(1, run["questions"] // max(pictures, 1))
        chosen = list(range(0, run["questions"], step))[:pictures]
        seen += [make_picture(run, data, number, patch) for number in chosen]
    for run in runs:
        run["id"] = run["id"].replace("built-in ", "")
        run["set"] = run["set"].replace("built-in ", "")
    for picture in seen:
        picture["run"] = picture["run"].replace("built-in ", "")
    return {
        "format": FORMAT,
        "title": "prunus compare --preset sample",
        "made": {
            "command": "prunus compare --preset sample --workers 2",
            "versions": {"prunus": "0.2.0", "torch": "2.8.0", "transformers": "5.19.0"},
            "device": "CPU, 2 cores",
            "threads": 1,
            "dtype": {"tiny-llava": "float32", "tiny-qwen": "float32"},
            "seconds": 1140.2,
            "date": "2026-11-26T08:00:00Z",
            "settings": {"seeds": [0, 1, 2], "rounds": 21},
        },
        "notes": [
            "These numbers are drawn by lot and say nothing about any method.",
            "Intervals: 95 %, bootstrap over images. p: paired, two-sided, corrected by Holm "
            "over all methods at one budget.",
        ],
        "budgets": [round(budget, 4) for budget in budgets],
        "methods": {name: facts(name) for name in METHODS},
        "runs": runs,
        "pictures": seen,
        "published": [published(), costs()],  # type: ignore[list-item]
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(make_comparison(560, 6)), encoding="utf-8")
