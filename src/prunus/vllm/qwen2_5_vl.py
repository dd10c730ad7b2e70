"""Qwen2.5-VL in vLLM."""

from __future__ import annotations

from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from prunus.vllm.model import Pruned
from prunus.vllm.qwen import GridThw, TellsGrid
from prunus.vllm.rope import ThreeRows


class ShorterQwen25VL(TellsGrid, Qwen2_5_VLMultiModalProcessor):
    """Grids are what the processor says."""


@MULTIMODAL_REGISTRY.register_processor(
    ShorterQwen25VL, info=Qwen2_5_VLProcessingInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder
)
class PrunedQwen25VL(GridThw, ThreeRows, Pruned, Qwen2_5_VLForConditionalGeneration):
    """``Qwen2_5_VLForConditionalGeneration``: images and videos, original M-RoPE positions."""
