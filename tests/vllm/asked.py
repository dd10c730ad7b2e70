"""Prompts, and what prunus.prune and an engine of vLLM make of them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch

import prunus
from prunus.families import family_of
from prunus.inference.named import build_methods
from prunus.vllm.eyes import Eyes, Left

#: Every method that vLLM can serve: by default, and with the settings behind a colon.
SERVED = (
    "clse@ahead",
    "divprune",
    "evoprune",
    "evs",
    "fastervlm",
    "hired",
    "holov",
    "mmr@diversity",
    "one-shot:question=false",
    "otprune",
    "pooling",
    "prumerge",
    "random:layer=none",
    "scope",
    "stepwise:question=false",
    "tome",
    "uniform:layer=none",
    "vidcom2",
    "visionzip",
    "vispruner",
)


@dataclass(frozen=True)
class Asked:
    """A text with placeholders, and what stands in them."""

    text: str
    images: Sequence[Any] = ()
    videos: Sequence[Any] = ()
    metadata: Sequence[Any] = ()

    @property
    def for_vllm(self) -> dict[str, Any]:
        """As vLLM takes it."""
        data: dict[str, Any] = {}
        if self.images:
            data["image"] = list(self.images)
        if self.videos:
            data["video"] = list(zip(self.videos, self.metadata, strict=True))
        return {"prompt": self.text, "multi_modal_data": data} if data else {"prompt": self.text}


@dataclass
class Said:
    """Kept cells of each input, and ids of the answer."""

    kept: list[list[int]] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    prompt: int = 0


def by_prune(
    model: Any,
    processor: Any,
    asked: Asked,
    method: str | None,
    keep: str | None,
    positions: str,
    length: int = 8,
) -> Said:
    """What ``prunus.prune`` makes of it; ``method`` None: the unmodified model."""
    given = {"images": list(asked.images) or None, "text": [asked.text], "return_tensors": "pt"}
    if asked.videos:
        given.update(videos=list(asked.videos), do_sample_frames=False)
        given["video_metadata"] = [
            {name: value for name, value in told.items() if name != "do_sample_frames"}
            for told in asked.metadata
        ]
    inputs = processor(**given)
    if family_of(model).takes_sizes and asked.images:
        inputs["image_sizes"] = torch.tensor([image.size[::-1] for image in asked.images])
    wanted = {"max_new_tokens": length, "min_new_tokens": length, "do_sample": False}
    start = inputs["input_ids"].shape[1]
    if method is None:
        out = model.generate(**inputs, **wanted)
        return Said([], out[0, start:].tolist(), start)
    methods = build_methods(method, keep, ())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prompt may have no image
        with prunus.prune(model, list(methods or ()), positions=positions) as run:
            out = model.generate(**inputs, **wanted)
        kept = [one.tolist() for one in run.trace[-1].kept[0]] if len(run.trace) else []
    return Said(kept, out[0, start:].tolist())


@contextmanager
def watched() -> Iterator[list[Left]]:
    """Everything that is left of inputs while the block runs, in the order in which it is seen."""
    seen: list[Left] = []
    see = Eyes.see

    def watching(self: Eyes, *args: Any) -> list[Left]:
        found = see(self, *args)
        seen.extend(found)
        return found

    with patch.object(Eyes, "see", watching):
        yield seen


def by_vllm(llm: Any, asked: Sequence[Asked], length: int = 8, banned: Sequence[int] = ()) -> Any:
    """What the engine makes of all of them at once."""
    from vllm import SamplingParams

    bias = dict.fromkeys(banned, -100.0) or None
    sampling = SamplingParams(max_tokens=length, min_tokens=length, temperature=0, logit_bias=bias)
    with watched() as seen:
        out = llm.generate([one.for_vllm for one in asked], sampling, use_tqdm=False)
    wanted = sum(len(one.images) + len(one.videos) for one in asked)
    left = iter(seen if len(seen) == wanted else ())  # those in vLLM's cache are not seen again
    found = []
    for one, own in zip(asked, out, strict=True):
        inputs = len(one.images) + len(one.videos)
        kept = [seen_of.kept.tolist() for seen_of in itertools.islice(left, inputs)]
        found.append(Said(kept, [*own.outputs[0].token_ids], len(own.prompt_token_ids)))
    return found


def swap(model: Any, method: str, keep: str) -> None:
    """Another method of the same ``keep`` in an engine that runs."""
    if model.eyes is not None:
        model.eyes.close()
    model.__dict__.pop("eyes", None)
    model.config.prunus = {"method": method, "keep": keep}
    torch.manual_seed(0)
