"""Time to first token, time per token, memory and waits of every method beside the dense model.

    python benchmarks/gpu.py --shape llava-1.5-7b --batch 1 --keep 64 --output times.json

A model of the real configuration with random weights (`--scale` shrinks it). Every method is timed
as a user runs it (`generate`), beside the dense model and beside the same tokens without choosing
(`oracle`: a replay of the method's own trace), interleaved in one run; medians and quartiles of the
ratios of each round. `waits`: how often the CPU waits for the GPU within a prefill.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

import prunus
from prunus.bench.build import build, prompt
from prunus.bench.clock import interleaved, quartiles, ratios, seconds
from prunus.bench.generation import timer
from prunus.bench.memory import cache_bytes, peak
from prunus.bench.settings import answer, oracle, pruned, untrained
from prunus.bench.shapes import shape_of
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.io.files import write_text

METHODS = (
    "random",
    "uniform",
    "clse",
    "fastv",
    "pyramiddrop",
    "sparsevlm",
    "dart",
    "divprune",
    "visionzip",
    "pooling",
    "evoprune",
    "tome",
    "visipruner",
    "mmr",
    "one-shot",
    "stepwise",
)


def waits(action: Any) -> Counter[str]:
    """Where the CPU waits for the GPU, as torch sees it, and how often."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            action()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(
        "/".join(Path(one.filename).parts[-3:]) + f":{one.lineno}"
        for one in caught
        if "synchronizing" in str(one.message)
    )


@torch.inference_mode()
def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one model and one batch size."""
    device, shape = torch.device(given.device), shape_of(given.shape)
    model = build(
        shape,
        scale=given.scale,
        dtype=getattr(torch, given.dtype),
        device=device,
        attention=given.attention,
    )
    inputs = prompt(model, shape, batch=given.batch, words=given.words)
    rows: dict[str, dict[str, Any]] = {"dense": {}}
    settings: dict[str, list[Any]] = {"dense": []}
    for name in given.methods.split(","):
        params = (
            {"keep": given.keep}
            if "keep" in {one.name for one in fields(prunus.methods()[name])}
            else {}
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                method = untrained(model, prunus.methods()[name](**params))
                told = oracle(model, [method], inputs)
        except PrunusError as error:
            rows[name] = {"refused": str(error)}
            print(f"{name}: {error}", flush=True)
            continue
        rows[name] = {}
        settings[name], settings[f"{name} told"] = [method], told
    warnings.simplefilter("ignore")

    def entered(methods: list[Any]) -> None:
        with pruned(model, methods):
            pass

    def prefill() -> Any:
        return model(**inputs, logits_to_keep=1, use_cache=True)

    for name, methods in settings.items():
        if name.endswith(" told"):
            continue
        row = rows[name]
        with pruned(model, methods) as run:
            out = prefill()
            row["kv_bytes"] = cache_bytes(out.past_key_values)
            if run is not None:
                report = run.report()
                tokens = report["tokens"]
                row["tokens"] = {key: tokens[key] for key in ("original", "kept", "average")}
                row["flops_ratio"] = report["flops"] and report["flops"]["ratio"]
                row["kv_counted"] = report["kv_bytes"] and report["kv_bytes"]["pruned"]
            del out
            row["peak_bytes"] = peak(prefill, device)
            if device.type == "cuda":
                found = waits(prefill)
                row["waits"], row["waits_at"] = found.total(), dict(found)
        with timer(family_of(model)) as timed, pruned(model, methods):
            parts = [timed(inputs, 1).parts for _ in range(4)][1:]
        row["stages_ms"] = {
            part: round(1e3 * quartiles([one[part] for one in parts])[1], 3) for part in parts[0]
        }
        row["block_ms"] = round(1e3 * seconds(lambda methods=methods: entered(methods), device), 3)
    around = {name: partial(pruned, model, methods) for name, methods in settings.items()}
    first = {name: partial(answer, model, inputs, 1) for name in settings}
    times = interleaved(first, device, given.rounds, warm_up=2, around=around)
    for name in rows:
        if name not in times:
            continue
        rows[name]["ttft_ms"] = [round(1e3 * x, 3) for x in quartiles(times[name])]
        rows[name]["ttft_ratio"] = [round(x, 4) for x in ratios(times[name], times["dense"])]
        if f"{name} told" in times:
            told = ratios(times[name], times[f"{name} told"])
            rows[name]["choosing_ratio"] = [round(x, 4) for x in told]
    longer = [name for name in given.decode.split(",") if name in settings]
    if longer:
        pairs = [(name, count) for name in longer for count in (1, 1 + given.tokens)]
        times = interleaved(
            {f"{name} {count}": partial(answer, model, inputs, count) for name, count in pairs},
            device,
            given.decode_rounds,
            warm_up=1,
            around={f"{name} {count}": around[name] for name, count in pairs},
        )
        steps = {
            name: [
                (whole - start) / given.tokens
                for whole, start in zip(
                    times[f"{name} {1 + given.tokens}"], times[f"{name} 1"], strict=True
                )
            ]
            for name in longer
        }
        for name in longer:
            rows[name]["token_ms"] = [round(1e3 * x, 3) for x in quartiles(steps[name])]
            rows[name]["token_ratio"] = [round(x, 4) for x in ratios(steps[name], steps["dense"])]
    return {
        "settings": vars(given) | {"output": None},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "parameters": sum(one.numel() for one in model.parameters()),
        "prompt_tokens": inputs["input_ids"].shape[1],
        "rows": rows,
    }


def main() -> None:
    """Measure, print a table, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="llava-1.5-7b")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--keep", type=int, default=64)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--decode", default="dense,clse,visipruner,divprune")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--decode-rounds", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    found = measure(given)
    print(f"{given.shape} batch {given.batch}, {found['prompt_tokens']} tokens, {found['device']}")
    for name, row in found["rows"].items():
        if "refused" not in row:
            print(
                f"{name:12} ttft {row['ttft_ms'][1]:8.2f} ms {row['ttft_ratio'][1]:6.3f} "
                f"told {row.get('choosing_ratio', [0, 0])[1]:6.3f} waits {row.get('waits')} "
                f"kv {row['kv_bytes'] / 2**20:7.1f} MiB counted {row.get('kv_counted')} "
                f"avg {row.get('tokens', {}).get('average')} token {row.get('token_ms')}",
                flush=True,
            )
    if given.output is not None:
        write_text(given.output, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
