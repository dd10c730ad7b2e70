"""Qwen3-VL in vLLM: images. What is added behind the first decoder layers goes with its tokens."""

from __future__ import annotations

from collections.abc import Mapping

from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from prunus.vllm.model import Pruned
from prunus.vllm.qwen import GridThw, TellsGrid
from prunus.vllm.rope import ThreeRows


class ImagesOfQwen3VL(Qwen3VLProcessingInfo):
    """No videos: their frames have timestamps between them, laid out before anything is seen of
    them, so that each frame would have to keep equally many tokens."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None, "video": 0}


class ShorterQwen3VL(TellsGrid, Qwen3VLMultiModalProcessor):
    """Grids are what the processor says."""


@MULTIMODAL_REGISTRY.register_processor(
    ShorterQwen3VL, info=ImagesOfQwen3VL, dummy_inputs=Qwen3VLDummyInputsBuilder
)
class PrunedQwen3VL(GridThw, ThreeRows, Pruned, Qwen3VLForConditionalGeneration):
    """``Qwen3VLForConditionalGeneration``: DeepStack, original M-RoPE positions."""
