"""``tiny-qwen``: a small Qwen2.5-VL for images of several sizes and short videos."""

from prunus.recipes.qwen.model import QwenShape, build_model
from prunus.recipes.qwen.processing import build_processor

__all__ = ["QwenShape", "build_model", "build_processor"]
