"""Time of the stepwise selector beside the prefill it shortens, and how it grows with K and N.

    .venv/bin/python benchmarks/selector.py --rounds 15 --output docs/data/stepwise/time.json
    .venv/bin/python benchmarks/selector.py --shape clip-l --rounds 5 \
        --output docs/data/stepwise/time_clip_l.json

For images of N tokens a model of tiny-llava's shape with random weights and that image size; the
selector has the shape of the one that ships. `--shape clip-l` is nearer to what is used: CLIP-L's
tower, a language model of 16 layers and width 2,048, the paper's selector. Whole prefills (tower,
projector, language model; one image, one question) and selections (encoder and K pointer steps,
fixed K) are interleaved; every time is divided by the dense prefill of its own round: medians with
quartiles. `end to end` is the pruned prefill with everything in it.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

import prunus
from prunus.bench.clock import interleaved, ratios
from prunus.families import family_of
from prunus.io.files import write_text
from prunus.selector.config import SelectorConfig
from prunus.selector.selector import Selector
from prunus.selector.store import Card

COUNTS = (16, 32, 64, 128)
WARM_UP = 2
_WORDS = 8


def like_tiny_llava(side: int) -> Any:
    """A model of tiny-llava's shape whose images have ``side`` x ``side`` tokens."""
    shipped, _ = prunus.load("tiny-llava")
    config = copy.deepcopy(shipped.config)
    config.vision_config.image_size = side * config.vision_config.patch_size
    config.image_seq_length = side * side
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config).eval()


def like_clip_l(side: int) -> Any:
    """LLaVA with CLIP-L's tower and a language model of 0.8 B parameters."""
    tower = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=14 * side,
        patch_size=14,
    )
    text = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5504,
        num_hidden_layers=16,
        num_attention_heads=16,
        vocab_size=1000,
    )
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=tower, text_config=text, image_token_id=999, image_seq_length=side * side
    )
    return LlavaForConditionalGeneration(config).eval()


@dataclass(frozen=True)
class Shape:
    """What is timed: a model by its images' side, which sides, and the selector beside it."""

    model: Callable[[int], Any]
    sides: tuple[int, ...]
    width: int
    heads: int


SHAPES = {
    "tiny-llava": Shape(like_tiny_llava, (12, 24, 32, 48), 128, 4),  # N = 144, 576, 1024, 2304
    "clip-l": Shape(like_clip_l, (24,), 1024, 16),
}


def settings(model: Any, side: int, own: Shape) -> dict[str, Callable[[], object]]:
    """What is timed for images of ``side`` x ``side`` tokens."""
    family, size = family_of(model), side * side
    visual, textual = family.feature_width, family.text_width
    card = Card("timing", family.fingerprint().tolist(), None)
    made = {
        kind: Selector(
            SelectorConfig(visual, textual, width=own.width, heads=own.heads, kind=kind)
        ).eval()
        for kind in ("stepwise", "one-shot")
    }
    image = torch.randn(1, 3, *[model.config.vision_config.image_size] * 2)
    words = torch.randint(30, 200, (1, _WORDS))
    ids = torch.cat([torch.full((1, size), model.config.image_token_id), words], 1)
    inputs = {"input_ids": ids, "pixel_values": image, "logits_to_keep": 1}
    features, text = torch.randn(1, size, visual), torch.randn(1, _WORDS, textual)
    here, said = torch.ones(1, size).bool(), torch.ones(1, _WORDS).bool()

    def encode(kind: str) -> torch.Tensor:
        return made[kind].encode(features, here, text, said)

    def select(kind: str, keep: int) -> object:
        return made[kind].pick(encode(kind), here, [keep], [keep])

    def pruned(method: prunus.Method) -> object:
        with prunus.prune(model, method):
            return model(**inputs)

    work: dict[str, Callable[[], object]] = {"prefill": lambda: model(**inputs)}
    work["encoder"] = lambda: encode("stepwise")
    for keep in COUNTS:
        if keep < size:
            work[f"stepwise {keep}"] = lambda keep=keep: select("stepwise", keep)
    ninth = size // 9
    work[f"stepwise {ninth} (1/9)"] = lambda: select("stepwise", ninth)
    work[f"one-shot {ninth} (1/9)"] = lambda: select("one-shot", ninth)
    stepwise = prunus.Stepwise(keep=ninth).with_selector(made["stepwise"], card)
    one_shot = prunus.OneShot(keep=ninth).with_selector(made["one-shot"], card)
    work[f"end to end: stepwise {ninth}"] = lambda: pruned(stepwise)
    work[f"end to end: one-shot {ninth}"] = lambda: pruned(one_shot)
    return work


@torch.inference_mode()
def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="tiny-llava")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rows, shape = [], SHAPES[args.shape]
    for side in shape.sides:
        work = settings(shape.model(side), side, shape)
        times = interleaved(work, torch.device("cpu"), args.rounds, WARM_UP, {})
        for name, own in times.items():
            low, middle, high = ratios(own, times["prefill"])
            ratio = [round(x, 4) for x in (low, middle, high)]
            rows.append({"tokens": side * side, "setting": name, "ratio": ratio})
            print(f"{side * side:5} {name:28} {middle:.3f} [{low:.3f}, {high:.3f}]", flush=True)
    if args.output is not None:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        about = {
            "shape": args.shape,
            "rounds": args.rounds,
            "threads": torch.get_num_threads(),
            **versions,
        }
        write_text(args.output, json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
