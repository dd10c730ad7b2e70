"""Qwen2-VL in vLLM."""

from __future__ import annotations

from vllm.model_executor.models.qwen2_vl import (
    Qwen2VLDummyInputsBuilder,
    Qwen2VLForConditionalGeneration,
    Qwen2VLMultiModalProcessor,
    Qwen2VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from prunus.vllm.model import Pruned
from prunus.vllm.qwen import GridThw, TellsGrid
from prunus.vllm.rope import ThreeRows


class ShorterQwen2VL(TellsGrid, Qwen2VLMultiModalProcessor):
    """Grids are what the processor says."""


@MULTIMODAL_REGISTRY.register_processor(
    ShorterQwen2VL, info=Qwen2VLProcessingInfo, dummy_inputs=Qwen2VLDummyInputsBuilder
)
class PrunedQwen2VL(GridThw, ThreeRows, Pruned, Qwen2VLForConditionalGeneration):
    """``Qwen2VLForConditionalGeneration``: images and videos, original M-RoPE positions."""
