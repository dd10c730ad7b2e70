"""LLaVA-NeXT in vLLM: an overview and tiles, whose newlines all stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.llava import LlavaDummyInputsBuilder
from vllm.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    LlavaNextMultiModalProcessor,
    LlavaNextProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from prunus.grid import AnyGrid
from prunus.vllm.model import Pruned
from prunus.vllm.processor import Shorter


class ShorterLlavaNext(Shorter, LlavaNextMultiModalProcessor):
    """Grids follow from the size of the picture."""

    def token_of(self, kind: str) -> int:
        return int(self.info.get_hf_config().image_token_index)

    def grid_of(self, kind: str, item: Mapping[str, Any]) -> AnyGrid:
        return self.counts.grid(kind, {"image_sizes": item["image_sizes"].data[None]})


@MULTIMODAL_REGISTRY.register_processor(
    ShorterLlavaNext, info=LlavaNextProcessingInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class PrunedLlavaNext(Pruned, LlavaNextForConditionalGeneration):
    """``LlavaNextForConditionalGeneration``; positions as of LLaVA-1.5."""

    def calls(self, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Pictures have unequally many tiles: those that are missing are filled up, as the model
        knows them."""
        pixels, sizes = kwargs.get("pixel_values"), kwargs.get("image_sizes")
        if pixels is None:
            return
        if not isinstance(pixels, Tensor):
            pixels = torch.nn.utils.rnn.pad_sequence([*pixels], batch_first=True)
        table = sizes if isinstance(sizes, Tensor) else torch.stack([*(sizes or ())])
        yield "image", {"pixel_values": pixels, "image_sizes": table}
