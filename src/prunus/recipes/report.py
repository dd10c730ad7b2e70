"""Measures a built-in model and writes its training report (Markdown and JSON)."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from prunus.builtin import load_builtin
from prunus.inference import prompts
from prunus.inference.inputs import process
from prunus.io.claim import BRIEFLY, claim
from prunus.io.files import replacing_all
from prunus.recipes.evaluate import (
    Choice,
    answers_right,
    encode_scenes,
    grey_scene,
    ground_truth_choice,
    random_choice,
    summary,
    uniform_choice,
)
from prunus.recipes.tables import curve_table, percent
from prunus.tasks.evalset import Item, load_evalset
from prunus.tasks.questions import TYPES, caption
from prunus.tasks.scenes import render

BUDGETS = (192, 128, 64)

#: What stands between these two lines of the page is replaced by the tables.
START, END = "<!-- measured -->", "<!-- end of measured -->"


def measure(model: LlavaForConditionalGeneration, items: Sequence[Item]) -> dict[str, Any]:
    """Accuracy dense, blind, and with three choices of tokens for each budget."""
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    features = encode_scenes(model, [item.scene for item in items])
    blind: dict[str, Tensor] = {
        "grey": grey_scene(model).expand_as(features),
        # item i sees the scene of item i + 1: real pictures, wrong ones
        "shuffled": features.roll(-1, 0),
    }
    choices: dict[str, Choice] = {}
    for keep in BUDGETS:
        choices[f"ground truth {keep}"] = ground_truth_choice(keep, side)
        choices[f"random {keep}"] = random_choice(keep, side)
        choices[f"uniform {keep}"] = uniform_choice(keep, side)
    out: dict[str, Any] = {}
    with Progress() as progress:
        task = progress.add_task("measuring", total=1 + len(blind) + len(choices))
        out["dense"] = summary(answers_right(model, items, features))
        progress.advance(task)
        for name, wrong in blind.items():
            out[name] = summary(answers_right(model, items, wrong))
            progress.advance(task)
        for name, choice in choices.items():
            out[name] = summary(answers_right(model, items, features, choice))
            progress.advance(task)
    return out


@torch.no_grad()
def measure_captions(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, items: Sequence[Item]
) -> dict[str, float]:
    """Share of objects that generated captions name, of named objects that exist, both in 0..1."""
    hit = named = there = whole = 0
    for item in items:
        question = caption(item.scene)
        prompt = prompts.render(processor, question.text, ["image"])
        inputs = process(processor, prompt, [render(item.scene)])
        ids = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        text = processor.tokenizer.decode(new, skip_special_tokens=True)
        said = [part.strip() for part in text.split(",") if part.strip()]
        left = question.answer.split(", ")
        there, named, whole = there + len(left), named + len(said), whole + (said == left)
        for part in said:
            if part in left:
                left.remove(part)
                hit += 1
    return {
        "scenes": len(items),
        "objects named": round(hit / max(1, there), 4),
        "names right": round(hit / max(1, named), 4),
        "whole caption right": round(whole / max(1, len(items)), 4),
    }


def training_curve(log: Path, every: int = 100) -> list[dict[str, Any]]:
    """Means of the training log over ``every`` steps of each stage."""
    rows: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for line in log.read_text("utf-8").splitlines():
        row = json.loads(line)
        rows[row["stage"], (row["step"] - 1) // every].append(row)
    curve = []
    for (stage, _), group in rows.items():
        last = group[-1]
        point = {k: last[k] for k in ("step", "minutes", "canvases")}
        names = sorted({k for row in group for k in row} - {"time", "stage", *point})
        means = {k: float(np.mean([row[k] for row in group if k in row])) for k in names}
        curve.append({"stage": stage, **point, **{k: round(v, 4) for k, v in means.items()}})
    return curve


def as_markdown(results: dict[str, Any]) -> str:
    """The tables of the report."""
    kinds = ["overall", *TYPES]
    lines = ["| | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for name, table in results["accuracy"].items():
        lines.append(f"| {name} | " + " | ".join(percent(table[k]) for k in kinds) + " |")
    chance = [f"{100 * np.mean(list(TYPES.values())):.1f}"]
    chance += [f"{100 * share:.1f}" for share in TYPES.values()]
    lines.append("| chance | " + " | ".join(chance) + " |")
    return "\n".join([*lines, "", curve_table(results["curve"], ("kind", "digit", "mean", *TYPES))])


def write_report(folder: Path, name: str, results: dict[str, Any], tables: str) -> None:
    """Write ``name``.json, and put the tables into ``name``.md between the two marks."""
    data, page = folder / f"{name}.json", folder / f"{name}.md"
    with claim(folder, BRIEFLY), replacing_all([data, page]) as partials:
        text = page.read_text("utf-8") if page.exists() else f"# {name}\n\n{START}\n{END}\n"
        before, _, rest = text.partition(START)
        after = rest.partition(END)[2]
        partials[0].write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        partials[1].write_text(f"{before}{START}\n{tables}\n{END}{after}", "utf-8")


def main() -> None:
    """Command line: ``python -m prunus.recipes.report``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="tiny-llava")
    parser.add_argument("--log", type=Path, required=True, help="log.jsonl of the training run")
    parser.add_argument("--output", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--captions", type=int, default=100, help="how many captions to generate")
    args = parser.parse_args()
    model, processor = load_builtin(args.name)
    if args.name == "tiny-qwen":
        from prunus.recipes.qwen import report

        results: dict[str, Any] = {"model": args.name, "sets": report.measure(model, processor)}
        results["curve"] = training_curve(args.log)
        write_report(args.output, args.name, results, report.as_markdown(results))
        return
    items = load_evalset()
    results = {
        "model": args.name,
        "accuracy": measure(model, items),
        "captions": measure_captions(model, processor, items[: args.captions]),
        "curve": training_curve(args.log),
    }
    write_report(args.output, args.name, results, as_markdown(results))


if __name__ == "__main__":
    main()
