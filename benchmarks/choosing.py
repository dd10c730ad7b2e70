"""What choosing costs: every method beside a replay of its own choice, at 576 and 2,880 tokens.

    .venv/bin/python benchmarks/choosing.py --output docs/data/choosing.json

Models of the form of LLaVA-1.5-7B (576 visual tokens) and LLaVA-NeXT-7B (2,880 and newlines) with
random weights, at ``--scale`` of their width and depth. Each method's prefill, tower included, is
timed beside one that is told the same tokens and beside the dense one, in turn, in one run;
``share`` is (method - told) / dense, round by round: lower quartile, median, upper quartile. What
merges in the tower is told its merges, so that its share is what finding them takes. A share below
zero is noise. What cannot keep so few in so few layers keeps more: ``keep`` of its row. Selectors
are as narrow as the model, but not as shallow: their share is too large. Methods that are done
already are not run again where the output has them.
"""

from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

import prunus
from prunus.bench.build import build, prompt
from prunus.bench.clock import interleaved, quartiles, ratios
from prunus.bench.settings import oracle, pruned, untrained
from prunus.bench.shapes import shape_of
from prunus.errors import PrunusError
from prunus.io.files import write_text
from prunus.method.registry import required

MORE = (1 / 3, 2 / 3)  # for what cannot keep as few as asked
SHAPES = {"576": "llava-1.5-7b", "2880": "llava-next-7b"}


def named(given: str) -> list[str]:
    """Methods that choose."""
    every = [name for name, cls in prunus.methods().items() if not required(cls)]
    return every if given == "all" else given.split(",")


@torch.inference_mode()
def measure(name: str, model: Any, inputs: dict[str, Any], given: argparse.Namespace) -> Any:
    """One row: quartiles of the share, and of the ratios to the dense prefill."""
    cls, device = prunus.methods()[name], torch.device("cpu")
    has_keep = "keep" in {one.name for one in fields(cls)}  # type: ignore[arg-type]
    for keep in (given.keep, *MORE):
        try:
            method = untrained(model, cls(keep=keep) if has_keep else cls(), given.scale)
            told = oracle(model, [method], inputs)
        except PrunusError as error:
            refused = str(error)
        else:
            break
    else:
        return {"refused": refused}
    settings: dict[str, list[Any]] = {"dense": [], "method": [method], "told": list(told)}
    around = {one: partial(pruned, model, methods) for one, methods in settings.items()}
    action = partial(model, **inputs, logits_to_keep=1, use_cache=True)
    times = interleaved(
        dict.fromkeys(settings, action), device, given.rounds, warm_up=1, around=around
    )
    rounds = zip(times["method"], times["told"], times["dense"], strict=True)
    shares = [(ours - theirs) / dense for ours, theirs, dense in rounds]
    return {
        "keep": round(keep, 4) if has_keep else None,
        "share": [round(x, 4) for x in quartiles(shares)],
        "to_dense": [round(x, 4) for x in ratios(times["method"], times["dense"])],
        "to_told": [round(x, 4) for x in ratios(times["method"], times["told"])],
        "dense_ms": round(1e3 * quartiles(times["dense"])[1], 1),
    }


def main() -> None:
    """Measure what is missing, print a line for each, write after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="all")
    parser.add_argument("--scale", type=float, default=0.25)
    parser.add_argument("--keep", type=float, default=1 / 9)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", default="576,2880")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    found = json.loads(given.output.read_text("utf-8")) if given.output.exists() else {}
    for tokens in given.tokens.split(","):
        shape = shape_of(SHAPES[tokens])
        model = build(
            shape,
            scale=given.scale,
            dtype=torch.float32,
            device=torch.device("cpu"),
            attention="sdpa",
        )
        inputs = prompt(model, shape, batch=1, words=given.words)
        own = found.setdefault(tokens, {"rows": {}})
        own |= {
            "command": f"benchmarks/choosing.py --scale {given.scale:g} --rounds {given.rounds}",
            "shape": shape.name,
            "scale": given.scale,
            "keep": round(given.keep, 4),
            "threads": given.threads,
            "device": "CPU, float32",
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        for name in named(given.methods):
            if name not in own["rows"]:
                own["rows"][name] = measure(name, model, inputs, given)
                print(tokens, name, own["rows"][name], flush=True)
                write_text(given.output, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
