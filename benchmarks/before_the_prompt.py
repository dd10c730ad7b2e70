"""What a choice without the prompt costs, on the built-in model's tuning split.

    .venv/bin/python benchmarks/before_the_prompt.py --keep 0.1111111

vLLM makes the features of an image without the prompt. Asked here, on questions that neither
training nor evaluation has: learned selectors without the question, and CLSE by look-ahead
(``clse@ahead``: the first decoder layer runs on the image's tokens alone), beside two forms of it
that vLLM could not serve, in which that layer also sees the first token of the prompt, or all that
precedes the image. docs/vllm.md has what came out.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import prunus
from prunus import CLSE, Cut, Method, OneShot, Stepwise, View
from prunus.evaluate import evaluate
from prunus.evaluate.cells import Cell
from prunus.inference.prompts import build_prompt
from prunus.method.registry import make_method
from prunus.results.stats import wilson
from prunus.signals.spectral import evolution, high_frequency
from prunus.tasks.sets import load_tuning_set


def front_of(model: Any, processor: Any) -> Tensor:
    """``[1, P, D]``: embeddings of what precedes the image in every prompt."""
    ids = processor.tokenizer(build_prompt(processor, "what ?", 1))["input_ids"]
    before = ids[: ids.index(model.config.image_token_id)]
    found: Tensor = model.get_input_embeddings()(torch.tensor([before])).detach()
    return found


def ahead(decoder: Any, before: Tensor) -> type[Method]:
    """CLSE's choice from what the first layer of ``decoder`` makes of the image behind ``before``
    (``[1, P, D]``)."""

    @dataclass(frozen=True)
    class Ahead(Method):
        name = "clse-ahead"

        keep: float = 1 / 9

        def cuts(self, depth: int) -> Sequence[Cut]:
            return [Cut(None, whole=True)]

        @torch.no_grad()
        def score(self, stage: int, view: View) -> Tensor:
            states = torch.cat([before.expand(len(view.states), -1, -1), view.states], 1)
            out = decoder(inputs_embeds=states, use_cache=False, output_hidden_states=True)
            now = out.hidden_states[1][:, before.shape[1] :]
            maps = (high_frequency(one, view.grid, 0.1) for one in (now, view.states))
            return evolution(*maps)

    return Ahead


def main() -> None:
    """Ask, and print each with its interval."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--each", type=int, default=30, help="questions of each type")
    parser.add_argument("--keep", type=float, default=1 / 9)
    told = parser.parse_args()
    keep = told.keep
    model, processor = prunus.load("tiny-llava", dtype="float32")
    front = front_of(model, processor)
    decoder = copy.deepcopy(model.model.language_model)
    tried: dict[str, Method] = {
        "clse, inside": CLSE(keep=keep),
        "clse, ahead": CLSE(keep=keep, ahead=True),
    }
    befores = {"the whole beginning": front, "the first token": front[:, :1]}
    for name, before in befores.items():
        tried[f"clse ahead behind {name}"] = ahead(decoder, before)(keep=keep)
    for name in ("divprune", "visionzip"):
        tried[name] = make_method(name, {"keep": keep})
    for kind in (Stepwise, OneShot):
        for question in (True, False):
            tried[f"{kind.name}, question={question}"] = kind(keep=keep, question=question)
    cells = [Cell("dense"), *(Cell(name, keep, None, one) for name, one in tried.items())]
    data = load_tuning_set("scenes", 0, told.scenes, told.each)
    outcomes = evaluate(model, processor, data, cells)
    print(f"{len(data.queries)} questions")
    for cell, outcome in zip(cells, outcomes, strict=True):
        share = [100 * one for one in wilson(float(outcome.right.sum()), len(outcome.right))]
        print(f"{cell.name:40} {share[0]:.1f} [{share[1]:.1f}, {share[2]:.1f}]")


if __name__ == "__main__":
    main()
