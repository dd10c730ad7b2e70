"""Every kind of tiny random model, with prompts for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
