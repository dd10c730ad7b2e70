"""InternVL in vLLM, as transformers has it: tiles and a thumbnail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.interns1 import (
    InternS1DummyInputsBuilder,
    InternS1ForConditionalGeneration,
    InternS1MultiModalProcessor,
    InternS1ProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems

from prunus.grid import AnyGrid
from prunus.vllm.model import Pruned
from prunus.vllm.processor import Shorter

_SIZES, _TILES = "image_sizes", "image_num_patches"


class ImagesOfInternVL(InternS1ProcessingInfo):
    """No videos: each frame is an image between texts of its own."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None, "video": 0}


class ShorterInternVL(Shorter, InternS1MultiModalProcessor):
    """Beside the number of tiles goes the size of the picture, which says how they are arranged."""

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Any) -> Any:
        found = super()._apply_hf_processor_main(mm_items, hf_kwargs)
        images = mm_items.get("image")
        if isinstance(images, ImageProcessorItems):
            sizes = [images.get_image_size(number) for number in range(len(images))]
            found[_SIZES] = torch.tensor([(size.height, size.width) for size in sizes])
        return found

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Any:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)
        return {**fields, _SIZES: MultiModalFieldConfig.batched("image", keep_on_cpu=True)}

    def grid_of(self, kind: str, item: Mapping[str, Any]) -> AnyGrid:
        tokens = self.info.get_hf_processor().image_seq_length
        tiles, size = torch.as_tensor(item[_TILES].data), item[_SIZES].data
        call = laid_out(self.token_of(kind), tokens, tiles.reshape(1), size[None])
        return self.counts.grid(kind, {"pixel_values": item["pixel_values"].data, **call})


@MULTIMODAL_REGISTRY.register_processor(
    ShorterInternVL, info=ImagesOfInternVL, dummy_inputs=InternS1DummyInputsBuilder
)
class PrunedInternVL(Pruned, InternS1ForConditionalGeneration):
    """``InternVLForConditionalGeneration``, which vLLM runs by the class of InternS1; positions as
    of LLaVA-1.5."""

    def calls(self, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        pixels = kwargs.get("pixel_values")
        if pixels is not None:
            yield "image", {"pixel_values": pixels}

    def beside(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        sizes: Any = kwargs[_SIZES]
        table = sizes if isinstance(sizes, Tensor) else torch.stack([*sizes])
        tiles = torch.as_tensor(kwargs[_TILES])
        return laid_out(self.config.image_token_id, self.num_image_token, tiles, table)


def laid_out(token: int, tokens: int, tiles: Tensor, sizes: Tensor) -> dict[str, Any]:
    """What the model is given beside pixels: a prompt with a run of placeholders ``token`` for each
    image, ``tokens`` of them for each of its ``tiles``, and ``sizes [n, 2]`` of the pictures."""
    between = 0 if token else 1
    ids = [one for count in tiles for one in (between, *[token] * (int(count) * tokens))]
    return {"input_ids": torch.tensor([ids]), _SIZES: sizes}
