"""LLaVA-1.5 in vLLM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from prunus.errors import PrunusError
from prunus.grid import AnyGrid
from prunus.vllm.model import Pruned
from prunus.vllm.processor import Shorter


class ShorterLlava(Shorter, LlavaMultiModalProcessor):
    """Every image has the same grid."""

    def token_of(self, kind: str) -> int:
        return int(self.info.get_hf_config().image_token_index)

    def grid_of(self, kind: str, item: Mapping[str, Any]) -> AnyGrid:
        grid = self.counts.family.default_grid()
        if grid is None:
            raise PrunusError(
                "LLaVA with a Pixtral tower is not served pruned by vLLM: with a CLIP or SigLIP one"
            )
        return grid


@MULTIMODAL_REGISTRY.register_processor(
    ShorterLlava, info=LlavaProcessingInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class PrunedLlava(Pruned, LlavaForConditionalGeneration):
    """``LlavaForConditionalGeneration``. Tokens that are left have positions 0, 1, 2, ... with the
    text, as ``positions="compact"`` has them."""

    def calls(self, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        pixels = kwargs.get("pixel_values")
        if pixels is not None:
            yield "image", {"pixel_values": pixels}
