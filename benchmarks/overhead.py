"""What the engine costs beside the least work that gives the same result.

    .venv/bin/python benchmarks/overhead.py --output docs/data/overhead.json

A LLaVA-shaped random model. Prefill: the model under ``prune(CLSE(keep=64))`` against a loop over
the same layers that is *told* which tokens to keep from layer 1 on, so that scoring, selection,
hooks and transformers' own wrappers are all on one side. Decode: one step on the pruned cache
against one step of the plain model on a plain cache whose layers have the same lengths. Both sides
of each comparison are timed in turn, in changing order, in one process; the ratio of every pair is
kept. Beside the clock, which says little on a machine that others use, stand counts that do not
depend on it: Python functions and operations of torch that each side calls. ``--clock cpu`` is the
time of the thread alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CLIPVisionConfig,
    DynamicCache,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

import prunus
from prunus.io.files import write_text

IMAGE = 31999


def build(layers: int, width: int) -> LlavaForConditionalGeneration:
    """A random LLaVA whose tower is small, because it is not timed."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=336,
        patch_size=14,
    )
    text = LlamaConfig(
        hidden_size=width,
        intermediate_size=int(width * 2.6875),  # as in Llama-2-7B
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        vocab_size=32000,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
    return LlavaForConditionalGeneration(config).eval()


def told(model: Any, ids: Tensor, features: Tensor, keep: Tensor) -> tuple[Tensor, DynamicCache]:
    """Last logits and cache of a bare loop over the layers, given the surviving positions."""
    lm = model.model.language_model
    states = lm.embed_tokens(ids)
    states[ids == IMAGE] = features
    cache = DynamicCache()
    cos, sin = lm.rotary_emb(states, torch.arange(ids.shape[1])[None])
    for number, layer in enumerate(lm.layers):
        if number == 1:
            states, cos, sin = states[:, keep], cos[:, keep], sin[:, keep]
        states = layer(
            states, position_embeddings=(cos, sin), past_key_values=cache, use_cache=True
        )
    return model.lm_head(lm.norm(states[:, -1:])), cache


CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
_clock = [time.perf_counter]


def seconds(action: Callable[[], Any]) -> float:
    """Time of one call, by the chosen clock."""
    start = _clock[0]()
    action()
    return _clock[0]() - start


def compare(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> dict[str, Any]:
    """Ratios of pairs timed one after the other, every second pair in the other order; ``ours``
    and ``theirs`` return seconds. The first tenth is warm-up."""
    pairs = []
    for number in range(rounds + rounds // 10):
        if number % 2:
            second, first = theirs(), ours()
        else:
            first, second = ours(), theirs()
        pairs.append((first, second))
    pairs = pairs[rounds // 10 :]
    low, median, high = statistics.quantiles((first / second for first, second in pairs), n=4)
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "ratio_median": median,
        "ratio_quartiles": [low, high],
        "ratio_of_medians": mine / other,
        "rounds": rounds,
        "ratios": [round(first / second, 4) for first, second in pairs],
        "ours_ms_median": 1e3 * mine,
        "theirs_ms_median": 1e3 * other,
    }


class Operations(TorchDispatchMode):
    """Counts operations of torch within a ``with`` block."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def counted(action: Callable[[], Any]) -> dict[str, int]:
    """What one call of ``action`` calls: Python functions, of prunus among them, and operations."""
    found, root = {"python": 0, "prunus": 0}, str(Path(prunus.__file__).parent)

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            found["python"] += 1
            found["prunus"] += frame.f_code.co_filename.startswith(root)

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    with Operations() as operations:
        action()
    return {**found, "operations": operations.count}


def steps_of(model: Any, method: Any, ids: Tensor, features: Any) -> dict[str, Any]:
    """What a decode step calls where masks stand: pruned, and plain behind as many tokens."""
    padded = torch.cat([ids, torch.cat([ids[:, :1].expand(-1, 8), ids[:, :-8]], 1)])
    hidden = torch.ones_like(padded)
    hidden[1, :8] = 0
    both = type(features)(pooler_output=list(features.pooler_output) * 2)
    prompts = {
        "eager": ({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, features),
        "sdpa, padded": ({"input_ids": padded, "attention_mask": hidden}, both),
        "eager, padded": ({"input_ids": padded, "attention_mask": hidden}, both),
    }
    found = {}
    for name, (prompt, images) in prompts.items():
        model.set_attn_implementation(name.partition(",")[0])

        def third(prompt: Any = prompt, images: Any = images) -> dict[str, int]:
            out = model(**prompt, mm_encoder_outputs={"image": images}, use_cache=True)
            mask = prompt["attention_mask"]
            token = mask.new_full((len(mask), 1), 7)

            def step() -> None:
                nonlocal mask
                mask = torch.cat([mask, torch.ones_like(token)], 1)
                model(input_ids=token, attention_mask=mask, past_key_values=out.past_key_values)

            step(), step()
            return counted(step)

        found[f"plain step, {name}"] = third()
        with prunus.prune(model, method):
            found[f"decode step, {name}"] = third()
    model.set_attn_implementation("sdpa")
    return found


@torch.no_grad()
def measure(layers: int, width: int, rounds: int) -> dict[str, Any]:
    """All comparisons, and a check that both sides compute the same."""
    model = build(layers, width)
    ids = torch.cat(
        [
            torch.randint(0, 31000, (1, 5)),
            torch.full((1, 576), IMAGE),
            torch.randint(0, 31000, (1, 20)),
        ],
        dim=1,
    )
    pixels = torch.randn(1, 3, 336, 336)
    features = model.model.get_image_features(pixels)
    vectors = torch.cat(list(features.pooler_output))
    method = prunus.CLSE(keep=64)

    def prefill() -> Any:
        return model(
            input_ids=ids, mm_encoder_outputs={"image": features}, logits_to_keep=1, use_cache=True
        )

    results: dict[str, Any] = {}
    with prunus.prune(model, method) as run:
        out = prefill()
        places = (ids[0] == IMAGE).nonzero().flatten()
        alive = torch.ones(ids.shape[1], dtype=torch.bool)
        alive[places] = False
        alive[places[run.trace[0].kept[0][0]]] = True
        keep = alive.nonzero().flatten()
        logits, cache = told(model, ids, vectors, keep)
        gap = float((logits - out.logits).abs().max())
        if gap > 1e-3:
            raise SystemExit(f"the two sides compute different things: logits differ by {gap}")
        results["largest_logit_difference"] = gap
        results["prefill"] = compare(
            lambda: seconds(prefill),
            lambda: seconds(lambda: told(model, ids, vectors, keep)),
            rounds,
        )
        results["calls"] = {
            "prefill": counted(prefill),
            "told loop": counted(lambda: told(model, ids, vectors, keep)),
        }
    results["calls"]["dense prefill"] = counted(prefill)
    results["dense_prefill_over_told_loop"] = compare(
        lambda: seconds(prefill),
        lambda: seconds(lambda: told(model, ids, vectors, keep)),
        max(10, rounds // 4),
    )
    token, position = torch.tensor([[7]]), torch.tensor([[ids.shape[1]]])
    pruned_cache = out.past_key_values
    lengths = [layer.keys.shape[-2] for layer in cache.layers]
    if lengths != [layer.keys.shape[-2] for layer in pruned_cache.layers]:
        raise SystemExit("the two caches hold different numbers of tokens")

    def step(store: Any) -> float:
        spent = seconds(
            lambda: model(input_ids=token, position_ids=position, past_key_values=store)
        )
        store.crop(-1)
        return spent

    run = prunus.prune(model, method)

    def pruned_step() -> float:  # the plain step runs unhooked: pruning goes on and off around it
        run.attach()
        try:
            step(pruned_cache)  # what the first step behind a prompt finds out for all
            return step(pruned_cache)
        finally:
            run.detach()

    results["decode"] = compare(pruned_step, lambda: step(cache), 10 * rounds)
    results["decode"]["cache_lengths"] = lengths

    def block() -> None:
        with prunus.prune(model, method):
            pass

    blocks = sorted(seconds(block) for _ in range(3 * rounds))
    results["block_ms"] = [1e3 * q for q in statistics.quantiles(blocks, n=4)]
    with prunus.prune(model, method):
        step(pruned_cache)
        results["calls"]["decode step"] = counted(lambda: step(pruned_cache))
    results["calls"]["plain step"] = counted(lambda: step(cache))
    results["calls"]["block"] = counted(block)
    results["calls"].update(steps_of(model, method, ids, features))
    with prunus.prune(model, method):
        pruned_logits = model(
            input_ids=token, position_ids=position, past_key_values=pruned_cache
        ).logits
    plain_logits = model(input_ids=token, position_ids=position, past_key_values=cache).logits
    results["decode"]["largest_logit_difference"] = float(
        (pruned_logits - plain_logits).abs().max()
    )
    return results


def main() -> None:
    """Parse the command line, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: of this thread; with --threads 1"
    )
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.clock == "cpu" and given.threads != 1:
        parser.error("--clock cpu is the time of one thread: give --threads 1")
    _clock[0] = CLOCKS[given.clock]
    torch.set_num_threads(given.threads)
    results = {
        "command": f"benchmarks/overhead.py --layers {given.layers} --width {given.width} "
        f"--rounds {given.rounds} --threads {given.threads} --clock {given.clock}",
        "device": f"CPU, {given.threads} threads, {platform.machine()}",
        "dtype": "float32",
        "attention": "sdpa",
        "visual_tokens": 576,
        "keep": 64,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        **measure(given.layers, given.width, given.rounds),
    }
    text = json.dumps(results, indent=2)
    print(text)
    if given.output:
        write_text(given.output, text + "\n")


if __name__ == "__main__":
    main()
