"""Where the time goes with many frames: tower, projector and language model apart.

    .venv/bin/python benchmarks/frames.py --output docs/data/frames.json

A stand-in for the video setting of EvoPrune's paper (figure 3, tables 2 and 3): a random LLaVA with
a tower of SigLIP-so400m's shape (width 1,152, 729 tokens per frame, 26 blocks as LLaVA-Video runs
them), no pooling, and a small language model of Qwen2-0.5B's width. Several images play the frames.
Timed is one prefill. The plain model, EvoPrune, and a selection of as many tokens *behind* the
projector (uniform; where other methods act) run in turn, in one process; ratios are taken within
each round.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.progress import track
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

import prunus
from prunus import EvoPrune, Uniform
from prunus.io.files import write_text

IMAGE, SIDE, PATCH = 99, 27, 14
PARTS = ("tower", "projector", "language model", "rest", "whole")


def build(blocks: int, layers: int) -> LlavaForConditionalGeneration:
    """The random model; every block of its tower is read."""
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=blocks,
        num_attention_heads=16,
        image_size=SIDE * PATCH,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=layers,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=1000,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE,
        image_seq_length=SIDE**2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return LlavaForConditionalGeneration(config).eval()


class Stopwatch:
    """Time inside the forward of three modules of a model."""

    def __init__(self, model: Any) -> None:
        self.spent: dict[str, float] = {}
        modules = {
            "tower": model.model.vision_tower,
            "projector": model.model.multi_modal_projector,
            "language model": model.model.language_model,
        }
        for name, module in modules.items():
            module.forward = self._timed(name, module.forward)

    def _timed(self, name: str, forward: Any) -> Any:
        @functools.wraps(forward)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            output = forward(*args, **kwargs)
            self.spent[name] = time.perf_counter() - began
            return output

        return timed


def measure(frames: int, keep: int, blocks: int, layers: int, rounds: int) -> dict[str, Any]:
    """Seconds of each part, and ratios to the plain model."""
    model = build(blocks, layers)
    watch = Stopwatch(model)
    tokens = SIDE**2
    ids = torch.tensor([[1] + ([IMAGE] * tokens + [2]) * frames + [3, 4, 5, 6]])
    pixels = torch.randn(frames, 3, SIDE * PATCH, SIDE * PATCH)
    sides: dict[str, Any] = {
        "plain": None,
        "EvoPrune": EvoPrune(keep=keep),
        "behind the tower": Uniform(keep=keep, layer=None),
    }
    times: dict[str, dict[str, list[float]]] = {
        name: {part: [] for part in PARTS} for name in sides
    }
    ratio = {}
    for number in track(range(rounds + 1), description="rounds"):
        names = list(sides)[number % 3 :] + list(sides)[: number % 3]
        for name in names:
            began = time.perf_counter()
            if sides[name] is None:
                model(input_ids=ids, pixel_values=pixels, logits_to_keep=1)
            else:
                with prunus.prune(model, sides[name]) as run:
                    model(input_ids=ids, pixel_values=pixels, logits_to_keep=1)
                flops = run.report()["flops"]
                ratio[name] = {"whole": flops["ratio"], "tower": flops["encoder_ratio"]}
            whole = time.perf_counter() - began
            if number:  # the first round warms up
                parts = dict(watch.spent)
                parts["rest"] = whole - sum(parts.values())
                parts["whole"] = whole
                for part, value in parts.items():
                    times[name][part].append(value)
    plain = times["plain"]
    return {
        "seconds": {n: {p: _spread(v) for p, v in t.items()} for n, t in times.items()},
        "ratio": {
            name: {
                part: _spread([a / b for a, b in zip(own[part], plain[part], strict=True)])
                for part in ("tower", "language model", "whole")
            }
            for name, own in times.items()
            if name != "plain"
        },
        "flops_ratio": ratio,
    }


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "low": ordered[0], "high": ordered[-1]}


def main() -> None:
    """Run, print and write the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--keep", type=int, default=64, help="tokens per frame")
    parser.add_argument("--blocks", type=int, default=26)
    parser.add_argument("--layers", type=int, default=12, help="of the language model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        found = measure(args.frames, args.keep, args.blocks, args.layers, args.rounds)
    for name, parts in found["seconds"].items():
        print(f"{name:18}", "  ".join(f"{p} {v['median']:.2f} s" for p, v in parts.items()))
    for name, parts in found["ratio"].items():
        texts = [
            f"{p} {v['median']:.3f} ({v['low']:.3f}-{v['high']:.3f})" for p, v in parts.items()
        ]
        print(f"{name:18}", "  ".join(texts), f" FLOPs {found['flops_ratio'][name]}")
    if args.output is not None:
        about = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "machine": platform.machine(),
            **{key: getattr(args, key) for key in ("frames", "keep", "blocks", "layers")},
            "rounds": args.rounds,
            "threads": args.threads,
        }
        write_text(args.output, json.dumps({**about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
