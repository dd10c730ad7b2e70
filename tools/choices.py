"""What the four systems choose on the built-in questions, written down or compared.

Run `python tools/choices.py record FILE` before a change and `python tools/choices.py compare FILE`
behind it: the same questions are asked, and every index must be the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

import prunus
from prunus.inference.batches import encode
from prunus.tasks.sets import load_builtin_set

MODELS = {"scenes": "tiny-llava", "sizes": "tiny-qwen", "videos": "tiny-qwen"}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "clse": ("clse", {"keep": 1 / 9}),
    "clse-hybrid": ("clse", {"keep": 2 / 9, "variant": "hybrid"}),
    "clse-released": ("clse", {"keep": 1 / 3, "variant": "released"}),
    "evoprune": ("evoprune", {"keep": 1 / 9}),
    "evoprune-hidden": ("evoprune", {"keep": 1 / 3, "metric": "hidden"}),
    "visipruner": ("visipruner", {}),
    "visipruner-middle": ("visipruner", {"stages": ("middle", "deep"), "force": True}),
    "stepwise": ("stepwise", {}),
    "stepwise-fixed": ("stepwise", {"keep": 1 / 9, "order": "picked"}),
    "one-shot": ("one-shot", {"keep": 2 / 9}),
    "mmr": ("mmr", {"keep": 1 / 9}),
}


def choices(run: Any) -> list[Any]:
    """The indices of every selection of the last prompt, as plain lists."""
    found = []
    for entry in run.trace:
        kept = [[one.tolist() for one in image] for image in entry.kept]
        merged = entry.merged_into
        into = None if merged is None else [[one.tolist() for one in image] for image in merged]
        found.append([entry.place, entry.layer, kept, into])
    return found


def ask(limit: int, only: str | None) -> Any:
    """Yield ``(key, choices)`` for every question of every set and every method."""
    for name, model_name in MODELS.items():
        model, processor = prunus.load(model_name)
        data = load_builtin_set(name).first(limit)
        for number, query in enumerate(data.queries):
            one, pixels = encode(processor, number, query.text, data.seen(query.image))
            inputs = {"input_ids": one.ids[None], **pixels}
            inputs |= {key: value[None] for key, value in one.per_token.items()}
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            for label, (method, params) in METHODS.items():
                if only is not None and label != only:
                    continue
                try:
                    with prunus.prune(model, method, **params) as run, torch.no_grad():
                        model(**inputs, logits_to_keep=1)
                    yield f"{name}/{number}/{label}", choices(run)
                except prunus.PrunusError as error:  # no selector of this kind for this model
                    yield f"{name}/{number}/{label}", [type(error).__name__]
        print(f"{name}: {len(data.queries)} questions", file=sys.stderr)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--only", choices=tuple(METHODS))
    asked = parser.parse_args()
    if asked.action == "record":
        asked.file.write_text(json.dumps(dict(ask(asked.limit, asked.only))))
        return 0
    before = json.loads(asked.file.read_text())
    same: dict[str, list[int]] = {}
    for key, found in ask(asked.limit, asked.only):
        name, number, label = key.split("/")
        count = same.setdefault(f"{name} {label}", [0, 0])
        count[0] += found == before[key]
        count[1] += 1
        if found != before[key] and count[1] - count[0] == 1:
            print(f"first difference of {name} {label}: question {number}")
    for label, (good, all_of) in same.items():
        print(f"{label:28} {good} of {all_of} the same")
    return int(any(good < all_of for good, all_of in same.values()))


if __name__ == "__main__":
    sys.exit(main())
