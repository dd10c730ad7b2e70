"""The processor of ``tiny-qwen``: Qwen2.5-VL's own, with its image and video parts."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5_VLProcessor

from prunus.errors import PrunusError
from prunus.inference.processor import NO_VIDEOS
from prunus.recipes.qwen.model import QwenShape
from prunus.recipes.qwen.words import CHAT_TEMPLATE, build_tokenizer

#: Least and most pixels of an image or frame; what is smaller or larger is resized.
LEAST, MOST = 64 * 64, 320 * 320


def build_processor(shape: QwenShape | None = None) -> Qwen2_5_VLProcessor:
    """The processor: sides that are multiples of a token's stay as they are.

    Raises:
        PrunusError: torchvision, which the video part needs, is not installed.
    """
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor
    from transformers.utils import is_torchvision_available

    if not is_torchvision_available():
        raise PrunusError(NO_VIDEOS)
    shape = shape or QwenShape()
    settings: dict[str, Any] = {
        "patch_size": shape.patch,
        "merge_size": shape.merge,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": LEAST, "longest_edge": MOST},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**settings),
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**settings, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )
