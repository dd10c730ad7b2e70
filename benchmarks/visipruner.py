"""Prefill of tiny-llava's language model with VisiPruner's stages, beside the dense one.

    .venv/bin/python benchmarks/visipruner.py --rounds 60 --output docs/data/visipruner_time.json

One prompt with one image, whose features are computed beforehand. Settings are interleaved in every
round, and each is divided by the dense run of its own round: ratios, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import transformers

import prunus
from prunus import CLSE, Method, VisiPruner
from prunus.io.files import write_text
from prunus.tasks.sample import load_sample

SETTINGS: dict[str, Method | None] = {
    "dense": None,
    "middle + deep": VisiPruner(stages=("middle", "deep")),
    "all three": VisiPruner(),
    "shallow": VisiPruner(stages=("shallow",)),
    "shallow, renormalised": VisiPruner(stages=("shallow",), renormalise=True),
    "clse, keep 230": CLSE(keep=230),
}
WARM_UP = 5


def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    model, processor = prunus.load("tiny-llava")
    image, questions = load_sample()
    prompt = f"USER: <image>\n{questions[0].text} ASSISTANT:"
    inputs = dict(processor(images=image, text=prompt, return_tensors="pt"))
    times: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with torch.inference_mode():
        features = model.model.get_image_features(inputs.pop("pixel_values"))
        inputs["mm_encoder_outputs"] = {"image": features}
        for _ in range(WARM_UP + args.rounds):
            for name, method in SETTINGS.items():
                with prunus.prune(model, method) if method else nullcontext():
                    began = time.perf_counter()
                    model(**inputs, logits_to_keep=1)
                    times[name].append(time.perf_counter() - began)
    rows = []
    for name, own in times.items():
        pairs = zip(own[WARM_UP:], times["dense"][WARM_UP:], strict=True)
        low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
        rows.append({"setting": name, "ratio": [round(x, 4) for x in (low, middle, high)]})
        print(f"{name:24} {middle:.3f} [{low:.3f}, {high:.3f}]")
    if args.output is not None:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        about = {"rounds": args.rounds, "threads": torch.get_num_threads(), **versions}
        write_text(args.output, json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
