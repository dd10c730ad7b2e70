"""Load on vLLM's server, dense against pruned: time to first token and requests per second.

    .venv-vllm/bin/python benchmarks/vllm_load.py --rounds 6

Two servers run side by side, ``vllm serve`` and ``prunus serve vllm``, on a LLaVA-1.5 of random
weights (speed does not depend on them; answers have a fixed length). They are asked in turn, so
that whatever else the machine does meets both: each round is ``--requests`` streamed requests at
once, each with an image of its own. Ratios are of rounds that follow each other. With ``--step`` a
third one takes part: pruned, with so many tokens in one step of the scheduler. Beside what a client
sees stand the servers' own counters (``/metrics``), and, to tell the tower from the language model,
what one request takes alone, with an image and with as many tokens of text.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
#: Requests that are asked one by one.
_ALONE = 5


def write_model(folder: Path, width: int, depth: int) -> None:
    """A LLaVA-1.5 like tiny-llava (its tower, processor and 576 tokens an image), with a language
    model of ``width`` channels and ``depth`` layers."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import LlavaForConditionalGeneration

    import prunus

    model, processor = prunus.load("tiny-llava")
    config = model.config
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = width, 3 * width, depth
    text.head_dim, text.num_attention_heads, text.num_key_value_heads = 64, width // 64, width // 64
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    file = folder / "model.safetensors"  # names as vLLM's own class looks for them
    old, new = "vision_tower.", "vision_tower.vision_model."
    named = {
        name if new in name else name.replace(old, new): value
        for name, value in load_file(file).items()
    }
    save_file(named, file, metadata={"format": "pt"})


@contextlib.contextmanager
def server(command: Sequence[str], log: Path) -> Iterator[Callable[[], str]]:
    """A server, as long as the block runs; what is given waits until it answers, and gives its
    address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT},
        )
        try:
            yield lambda: wait_for(port, process, log)
        finally:
            process.terminate()
            process.wait(60)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 400) -> str:
    """Wait until something answers, and give its address.

    Raises:
        RuntimeError: it ended, or took too long.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return f"http://127.0.0.1:{port}/v1"
        time.sleep(0.5)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-6000:]}")


def picture(seed: int) -> str:
    """A picture of its own, as an address that holds it."""
    blocks = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(blocks.repeat(16, 0).repeat(16, 1)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def counters(base: str) -> dict[str, float]:
    """What a server has counted so far, by name; buckets of a histogram as NAME<=LIMIT."""
    found: dict[str, float] = {}
    with urllib.request.urlopen(base.removesuffix("/v1") + "/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("vllm:"):
                name, _, labels = line.rpartition(" ")[0].partition("{")
                limit = labels.partition('le="')[2].partition('"')[0]
                found[f"{name}<={limit}" if limit else name] = float(line.rpartition(" ")[2])
    return found


def between(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What a server did in between: steps of the scheduler that had a prompt in them (more tokens
    than there were requests), and the engine's mean seconds of a request until it was scheduled,
    and from there to its first token."""

    def more(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    steps, seconds = "vllm:iteration_tokens_total", "vllm:request_{}_time_seconds_{}"
    return {
        "prompt_steps": more(f"{steps}_count") - more(f"{steps}_bucket<=16.0"),
        **{
            f"{name}_s": more(seconds.format(name, "sum")) / more(seconds.format(name, "count"))
            for name in ("queue", "prefill")
        },
    }


def with_picture(seed: int) -> list[dict[str, Any]]:
    """A question about a picture of its own."""
    image = {"type": "image_url", "image_url": {"url": picture(seed)}}
    return [image, {"type": "text", "text": "what color is the digit ?"}]


def of_text(seed: int, words: int) -> list[dict[str, Any]]:
    """As many words, which begin as no other seed's."""
    some = ["what", "color", "is", "the", "digit", "?"]
    first = some[seed % len(some) :] + some[: seed % len(some)]
    return [{"type": "text", "text": " ".join((first * words)[:words])}]


async def ask(client: Any, model: str, content: Any, tokens: int) -> tuple[float, int]:
    """Seconds to the first token, and prompt tokens by the response's usage."""
    start = time.perf_counter()
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": content}],
        max_tokens=tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    first, prompt = 0.0, 0
    async for part in stream:
        first = first or time.perf_counter() - start
        prompt = part.usage.prompt_tokens if part.usage else prompt
    return first, prompt


async def round_of(
    base: str, model: str, asked: Sequence[Any], tokens: int
) -> tuple[list[float], float, int]:
    """Times to the first token, requests per second, and prompt tokens of one of them."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=base, api_key="none") as client:
        start = time.perf_counter()
        found = await asyncio.gather(*(ask(client, model, one, tokens) for one in asked))
        took = time.perf_counter() - start
    return [first for first, _ in found], len(asked) / took, found[0][1]


def alone(base: str, asked: Sequence[Any]) -> dict[str, float]:
    """Of requests one after the other: prompt tokens, and medians of the client's seconds to the
    first token and of the engine's own for the prompt, without what the server does before."""
    first, engine, prompt = [], [], 0
    for one in asked:
        before = counters(base)
        own, _, prompt = asyncio.run(round_of(base, "llava", [one], 2))
        first += own
        engine.append(between(before, counters(base))["prefill_s"])
    return {
        "prompt_tokens": prompt,
        "first_token_s": round(statistics.median(first), 3),
        "prefill_s": round(statistics.median(engine), 3),
    }


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [round(one, 3) for one in statistics.quantiles(values, n=4, method="inclusive")]


def main() -> None:
    """Run, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--method", default="divprune")
    parser.add_argument("--keep", default="0.25")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--step", type=int, help="--max-num-batched-tokens of a third server")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "llava"
        write_model(folder, told.width, told.depth)
        more = ["--max-model-len", "1024", "--enforce-eager", "--served-model-name", "llava"]
        more += ["--max-num-seqs", str(told.requests)]
        pruned = ["--method", told.method, "--keep", told.keep]
        dense = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]
        prunus = [sys.executable, "-m", "prunus", "serve", "vllm"]
        serve = [*prunus, str(folder), *pruned, *more]
        commands = {"dense": [*dense, str(folder), *more], "pruned": serve}
        if told.step is not None:
            commands["pruned, small steps"] = [*serve, "--max-num-batched-tokens", str(told.step)]
        with contextlib.ExitStack() as running:
            starting = {
                name: running.enter_context(server(command, Path(place) / f"{name}.log"))
                for name, command in commands.items()
            }
            bases = {name: wait() for name, wait in starting.items()}
            print(json.dumps(measure(bases, told), indent=1))


def measure(bases: dict[str, str], told: argparse.Namespace) -> dict[str, Any]:
    """Rounds in turn; the first of each server warms up. Of times to the first token those of the
    first, the middle and the last request of a round."""
    times: dict[str, list[list[float]]] = {name: [] for name in bases}
    rate: dict[str, list[float]] = {name: [] for name in bases}
    counted: dict[str, list[dict[str, float]]] = {name: [] for name in bases}
    prompt: dict[str, int] = {}
    for number in range(told.rounds + 1):
        for name, base in bases.items():
            seeds = range(number * told.requests, (number + 1) * told.requests)
            before = counters(base)
            asked = [with_picture(seed) for seed in seeds]
            own, speed, prompt[name] = asyncio.run(round_of(base, "llava", asked, told.tokens))
            if number:
                times[name].append([min(own), statistics.median(own), max(own)])
                rate[name].append(speed)
                counted[name].append(between(before, counters(base)))
    found: dict[str, Any] = {**vars(told), "prompt_tokens": prompt}
    for place, which in enumerate(("first", "median", "last")):
        found[f"{which}_first_token_s"] = {
            name: quartiles([one[place] for one in own]) for name, own in times.items()
        }
    found["requests_per_s"] = {name: quartiles(own) for name, own in rate.items()}
    found["counters"] = {
        name: {one: quartiles([each[one] for each in own]) for one in own[0]}
        for name, own in counted.items()
    }
    for name in [one for one in bases if one != "dense"]:
        pairs = zip(times["dense"], times[name], strict=True)
        speeds = zip(rate["dense"], rate[name], strict=True)
        found[f"{name}: median_first_token_ratio"] = quartiles([a[1] / b[1] for a, b in pairs])
        found[f"{name}: throughput_ratio"] = quartiles([after / before for before, after in speeds])
    for name in ("dense", "pruned"):
        pictures = [with_picture(10**6 + number) for number in range(_ALONE)]
        words = [of_text(number, prompt[name]) for number in range(_ALONE)]
        found[f"{name}, alone"] = {
            "image": alone(bases[name], pictures),
            "text": alone(bases[name], words),
        }
    return found


if __name__ == "__main__":
    main()
