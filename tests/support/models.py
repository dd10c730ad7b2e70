"""Every kind of tiny random model, with prompts for it."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import torch

from tests.support.llava import (
    Prompts,
    llava_clip,
    llava_clip_full,
    llava_siglip,
)
from tests.support.qwen import QwenPrompts, qwen

MODELS = {
    "llava-clip": llava_clip,
    "llava-clip-full": llava_clip_full,
    "llava-siglip": llava_siglip,
    "qwen2.5-vl": qwen,
    "qwen2.5-vl-video": qwen,
}


@dataclass
class Case:
    name: str
    model: Any
    prompts: Prompts | QwenPrompts


def prompts_for(name: str) -> Prompts | QwenPrompts:
    """Prompts for a model of :data:`MODELS`."""
    if name.startswith("qwen"):
        return QwenPrompts(("video", "image") if name.endswith("video") else ("image",))
    return Prompts(1 if name == "llava-clip-full" else 0)


def case_of(name: str) -> Case:
    """A fresh model of a kind, with torch's random numbers at their start.

    It is a copy of one that never ran, which is made once: building takes two to three times as
    long as copying, and thousands of tests want a model of their own.
    """
    model = copy.deepcopy(_built(name))
    torch.manual_seed(0)
    return Case(name, model, prompts_for(name))


@functools.cache
def _built(name: str) -> Any:
    return MODELS[name]()
