"""From the bytes of a picture to what the model is given: PIL, and the model's image processor."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image

from prunus.bench.shapes import Shape

_QUALITY = 90


def jpeg(size: tuple[int, int], seed: int = 0) -> bytes:
    """A JPEG of height and width ``size``: soft colours and some noise, as photographs have."""
    numbers = np.random.default_rng(seed)
    coarse = Image.fromarray(numbers.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = np.clip(soft + numbers.integers(-12, 13, soft.shape), 0, 255).astype(np.uint8)
    return encoded(Image.fromarray(noisy))


def encoded(picture: Image.Image) -> bytes:
    """``picture`` as a JPEG."""
    file = BytesIO()
    picture.convert("RGB").save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue()


def opened(content: bytes) -> Image.Image:
    """The picture of a file, decoded."""
    with Image.open(BytesIO(content)) as picture:
        return picture.convert("RGB")


def decoder(model: Any, shape: Shape, frames: int) -> Callable[[], Any] | None:
    """What makes pixel values of the picture of a ``shape``, or of ``frames`` pictures where it has
    a video; None where torchvision, which transformers' processors need, is missing."""
    try:
        processor = _processor(model)
    except ImportError:
        return None
    files = [jpeg(shape.size, number) for number in range(frames or 1)]

    def decode() -> Any:
        pictures = [opened(one) for one in files]
        if not frames:
            return processor(images=pictures, return_tensors="pt")
        video = torch.from_numpy(np.stack([np.asarray(one) for one in pictures]))
        return processor(videos=[video.permute(0, 3, 1, 2)], return_tensors="pt")

    return decode


def _processor(model: Any) -> Any:
    """The real class, with the numbers of the published models."""
    import transformers

    vision = model.config.vision_config
    side = getattr(vision, "image_size", None)
    square = {"height": side, "width": side}
    clip = {"size": {"shortest_edge": side}, "crop_size": square}
    match model.config.model_type:
        case "llava":
            return transformers.CLIPImageProcessor(**clip)
        case "llava_next":
            pinpoints = model.config.image_grid_pinpoints
            return transformers.LlavaNextImageProcessor(**clip, image_grid_pinpoints=pinpoints)
        case "internvl":
            size = {"height": side[0], "width": side[1]}  # type: ignore[index]
            return transformers.GotOcr2ImageProcessor(
                size=size, crop_to_patches=True, min_patches=1, max_patches=12
            )
        case "video_llava":
            return transformers.VideoLlavaVideoProcessor(**clip)
        case "llava_onevision":
            return transformers.LlavaOnevisionVideoProcessor(size=square)
        case _:
            return transformers.Qwen2VLImageProcessor(
                patch_size=vision.patch_size,
                merge_size=vision.spatial_merge_size,
                temporal_patch_size=vision.temporal_patch_size,
            )
