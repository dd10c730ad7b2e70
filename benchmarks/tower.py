"""Time of a vision tower with EvoPrune inside, against the same tower without.

    .venv/bin/python benchmarks/tower.py --output docs/data/tower.json

A random tower of CLIP ViT-L's shape (width 1,024, 16 heads, MLP 4,096; fewer blocks) inside a
LLaVA, at 576, 1,024 and 2,304 tokens. Timed is ``get_image_features``, pixels to projected
features, with the budget of 11.1 %. The plain tower, EvoPrune, and a replay of its merges (the same
work in the blocks, nothing chosen) run in turn, in changing order, in one process; ratios are taken
within each round.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import prunus
from prunus import EvoPrune, Selection, View
from prunus.io.files import write_text
from prunus.method.signals import TowerAttention

IMAGE, PATCH = 99, 14
SPENT = {"choice": 0.0, "attention": 0.0}


@dataclasses.dataclass(frozen=True)
class Timed(EvoPrune):
    """EvoPrune that notes how long it takes to choose, and what of that is attention received."""

    def merge(self, view: View) -> Selection:
        began = time.perf_counter()
        if self.protect > 0:
            view[TowerAttention(rows="all")]  # what is read once stays
            SPENT["attention"] += time.perf_counter() - began
        answer = super().merge(view)
        SPENT["choice"] += time.perf_counter() - began
        return answer


def build(tokens: int, blocks: int) -> LlavaForConditionalGeneration:
    """A random LLaVA of which ``blocks`` tower blocks reach the projector (one more runs)."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=blocks + 1,
        num_attention_heads=16,
        image_size=round(tokens**0.5) * PATCH,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        vocab_size=100,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, image_seq_length=tokens
    )
    return LlavaForConditionalGeneration(config).eval()


def seconds(action: Callable[[], Any]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def measure(tokens: int, blocks: int, rounds: int, method: EvoPrune) -> dict[str, Any]:
    """Times of one size, in seconds, and their ratios to the plain tower."""
    model = build(tokens, blocks)
    pixels = torch.randn(1, 3, *[round(tokens**0.5) * PATCH] * 2)
    ids = torch.tensor([[1] + [IMAGE] * tokens + [2, 3]])
    with prunus.prune(model, method) as run:
        model(input_ids=ids, pixel_values=pixels)
    report, replay = run.report(), prunus.Fixed.replay(run.trace)

    def tower() -> None:
        model.model.get_image_features(pixels)

    def pruned(chosen: Any) -> Callable[[], float]:
        def timed() -> float:
            with prunus.prune(model, chosen):
                return seconds(tower)

        return timed

    sides: dict[str, Callable[[], float]] = {
        "plain": lambda: seconds(tower),
        "evoprune": pruned(method),
        "replay": pruned(replay),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    spent: dict[str, list[float]] = {name: [] for name in SPENT}
    for number in range(rounds + 1):
        names = list(sides)[number % 3 :] + list(sides)[: number % 3]
        SPENT.update(dict.fromkeys(SPENT, 0.0))
        for name in names:
            took = sides[name]()
            if number:  # the first round warms up
                times[name].append(took)
        if number:
            for name, value in SPENT.items():
                spent[name].append(value)
    ratios = {
        name: [a / b for a, b in zip(times[name], times["plain"], strict=True)]
        for name in ("evoprune", "replay")
    }
    flops = report["flops"]
    work = flops["pruned"]["encoder"] + flops["pruned"]["method"]
    return {
        "tokens": tokens,
        "left": round(report["tokens"]["kept"]),
        "seconds": {name: _spread(values) for name, values in {**times, **spent}.items()},
        "ratio": {name: _spread(values) for name, values in ratios.items()},
        "flops_ratio": work / flops["dense"]["encoder"],
    }


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "low": ordered[len(ordered) // 4],
        "high": ordered[-1 - len(ordered) // 4],
    }


def show(row: dict[str, Any]) -> str:
    """One size in a few lines."""
    times, ratio = row["seconds"], row["ratio"]

    def text(value: dict[str, float]) -> str:
        return f"{value['median']:.3f} ({value['low']:.3f} to {value['high']:.3f})"

    return (
        f"{row['tokens']} -> {row['left']} tokens: plain {times['plain']['median']:.3f} s, with "
        f"EvoPrune {times['evoprune']['median']:.3f} s\n"
        f"  ratio         {text(ratio['evoprune'])}   FLOPs {row['flops_ratio']:.3f}\n"
        f"  replay        {text(ratio['replay'])}   (merging alone, nothing chosen)\n"
        f"  choosing      {times['choice']['median']:.3f} s, of which attention received "
        f"{times['attention']['median']:.3f} s"
    )


def main() -> None:
    """Run, print and write the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[576, 1024, 2304])
    parser.add_argument("--blocks", type=int, default=12, help="that reach the projector")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=float, default=1 / 9)
    parser.add_argument("--start", type=int, default=1)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    method = Timed(keep=args.keep, start=args.start)
    rows = []
    with torch.inference_mode():
        for tokens in args.tokens:
            rows.append(measure(tokens, args.blocks, args.rounds, method))
            print(show(rows[-1]), flush=True)
    if args.output is not None:
        about = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "machine": platform.machine(),
            "threads": args.threads,
            "blocks": args.blocks,
            "rounds": args.rounds,
            "keep": args.keep,
            "start": args.start,
        }
        write_text(args.output, json.dumps({**about, "sizes": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
