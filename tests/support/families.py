"""Tiny random models of the families that read real pictures, with their real processors on disk.

Each :class:`Kind` is saved and loaded through ``prunus.load``, as a published model would be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

DEPTH = 5
TILE, PATCH = 32, 8  # pixels, of LLaVA-NeXT
PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
QWEN_PATCH, QWEN_CELL = 4, 8  # pixels: a patch, and the 2 x 2 of them that are one visual token
_PAD, _START, _VISION = "<|endoftext|>", "<|im_start|>", "<|vision_start|>"
_QWEN = (_START, "<|im_end|>", _VISION, "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
#: A small decoder.
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.15,
}

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}: {% for part in message['content'] %}
{%- if part['type'] == 'image' %}IMAGE
{%- elif part['type'] == 'video' %}VIDEO
{%- else %}{{ part['text'] }}
{%- endif %}
{%- endfor %}<|im_end|>
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant:{% endif %}"""


def tokenizer(*special: str, **named: str) -> Any:
    """A byte for a token; ``special`` tokens behind all bytes, in this order, and those that the
    tokenizer has a name for (``boi_token``)."""
    words = [_PAD, "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(BPE(vocab={w: n for n, w in enumerate(words)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = (*words[:3], *special, *named.values())
    known = [AddedToken(word, special=True, normalized=False) for word in special]
    backend.add_special_tokens(known)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=_PAD,
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
        extra_special_tokens=named,
    )


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        image, video: what stands in a text for an image or video ("" where there are none).
        build: a fresh model and processor.
        found: of a model and the token ids of a row, kind and positions of the visual tokens of
            each input; None: each run of placeholders is an input of its own.
        frames: of every video; None: videos have different numbers of them.
        tile: visual tokens of a row of ``pixel_values``, where an image may have several rows.
        alone: of a batch, "image" or "video" and which of these, the inputs beside the token ids;
            None: a grid or one entry says what is whose.
        nested: whether the processor wants a list of images for each row.
        each: names of further arguments that have one entry for each input of a kind.
        timed: whether the processor must be told when the frames of a video were taken.
        pictured: whether it takes no batch without an image; its tokenizer then makes these.
    """

    name: str
    image: str
    video: str
    build: Callable[[], tuple[Any, Any]]
    found: Callable[[Any, Sequence[int]], list[tuple[str, list[int]]]] | None = None
    frames: int | None = None
    tile: int | None = None
    alone: Callable[[dict[str, Tensor], str, slice], dict[str, Tensor]] | None = None
    nested: bool = False
    each: tuple[str, ...] = ()
    timed: bool = False
    pictured: bool = False

    def save(self, folder: Path) -> None:
        """Write model and processor."""
        model, processor = self.build()
        model.save_pretrained(folder)
        processor.save_pretrained(folder)


def finish(model: Any, placeholders: Sequence[int]) -> Any:
    """``model``, ready to generate answers without ``placeholders``."""
    model = model.eval()
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    model.generation_config.suppress_tokens = list(placeholders)  # none in an answer
    return model


def llava_next() -> tuple[Any, Any]:
    """CLIP tiles of 4 x 4 tokens."""
    words = tokenizer("<image>", _START, "<|im_end|>")
    token = words.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    config = LlavaNextConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": TILE,
            "patch_size": PATCH,
            "projection_dim": 32,
        },
        text_config={"model_type": "llama", **TEXT},
        image_token_id=token,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=(TILE // PATCH) ** 2,
    )
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(
            size={"shortest_edge": TILE},
            crop_size={"height": TILE, "width": TILE},
            image_grid_pinpoints=PINPOINTS,
        ),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return finish(LlavaNextForConditionalGeneration(config), [token]), processor


def qwen_model(
    config_class: Any, model_class: Any, vision: dict[str, Any], text: dict[str, Any]
) -> Any:
    """A model of one of Qwen's families, and its tokenizer."""
    words = tokenizer(*_QWEN)
    ids = dict(zip(_QWEN, words.convert_tokens_to_ids(list(_QWEN)), strict=True))
    torch.manual_seed(0)
    config = config_class(
        vision_config={
            "patch_size": QWEN_PATCH,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "depth": 4,
            "num_heads": 2,
            "initializer_range": 0.15,
            **vision,
        },
        text_config={**TEXT, **text},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids[_VISION],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    model = model_class(config)
    return finish(model, [config.image_token_id, config.video_token_id]), words


MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_SIZES = {
    "patch_size": QWEN_PATCH,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 8 * QWEN_CELL**2, "longest_edge": 64 * QWEN_CELL**2},
}


def qwen_processor(cls: Any, video: Any, words: Any) -> Any:
    """The processor of one of them."""
    template = TEMPLATE
    for kind in ("image", "video"):
        mark = f"<|vision_start|><|{kind}_pad|><|vision_end|>"
        template = template.replace(kind.upper(), mark)
    return cls(
        image_processor=Qwen2VLImageProcessor(**_SIZES),
        tokenizer=words,
        video_processor=video(**_SIZES),
        chat_template=template,
    )


def qwen2_vl() -> tuple[Any, Any]:
    """A tower of 32 channels whose merger gives 64."""
    vision = {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    model, words = qwen_model(
        Qwen2VLConfig, Qwen2VLForConditionalGeneration, vision, {"rope_parameters": MROPE}
    )
    return model, qwen_processor(Qwen2VLProcessor, Qwen2VLVideoProcessor, words)


_VISION3 = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 2],
}


def qwen3_vl() -> tuple[Any, Any]:
    """Features of two tower blocks enter behind the first two of four decoder layers."""
    model, words = qwen_model(
        Qwen3VLConfig, Qwen3VLForConditionalGeneration, _VISION3, {"rope_parameters": MROPE}
    )
    return model, qwen_processor(Qwen3VLProcessor, Qwen3VLVideoProcessor, words)


def qwen3_vl_moe() -> tuple[Any, Any]:
    """The same with four experts in each layer."""
    text = {
        "rope_parameters": MROPE,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    }
    model, words = qwen_model(Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration, _VISION3, text)
    return model, qwen_processor(Qwen3VLProcessor, Qwen3VLVideoProcessor, words)


_IMAGE, _VIDEO = (f"<|vision_start|><|{kind}_pad|><|vision_end|>" for kind in ("image", "video"))
LLAVA_NEXT = Kind("llava-next", "<image>", "", llava_next)
QWEN2_VL = Kind("qwen2-vl", _IMAGE, _VIDEO, qwen2_vl)
QWEN3_VL = Kind("qwen3-vl", _IMAGE, _VIDEO, qwen3_vl)
QWEN3_VL_MOE = Kind("qwen3-vl-moe", _IMAGE, _VIDEO, qwen3_vl_moe)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height))


def marked(width: int, height: int, left: int, top: int, side: int) -> Image.Image:
    """A black picture with one white square."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[top : top + side, left : left + side] = 255
    return Image.fromarray(pixels)


def clip(frames: int, width: int, height: int, seed: int = 0) -> list[Image.Image]:
    """Frames of a video, each other coloured blocks."""
    return [picture(width, height, seed + number) for number in range(frames)]


SMALL, WIDE, TALL = (48, 32), (88, 40), (40, 72)  # width and height
SIZES = (WIDE, SMALL, TALL)


def encoded(kind: Kind, processor: Any, *rows: str) -> dict[str, Tensor]:
    """A left-padded batch. A row is a text in which ``I`` stands for an image (of sizes that take
    turns over the batch), ``V`` for a video, and everything else for itself."""
    sizes = itertools.cycle(SIZES)
    images, videos, texts, counts = [], [], [], []
    for row in rows:
        text = ""
        counts.append(row.count("I"))
        for sign in row:
            if sign == "I":
                images.append(picture(*next(sizes), seed=len(images)))
                text += kind.image
            elif sign == "V":
                frames = kind.frames or 4 + 2 * len(videos)
                videos.append(clip(frames, *SMALL, seed=9 + len(videos)))
                text += kind.video
            else:
                text += sign
        texts.append(text)
    given: dict[str, Any] = {"text": texts, "return_tensors": "pt", "padding": True}
    if images:
        left = iter(images)
        by_row = [list(itertools.islice(left, count)) for count in counts]
        given["images"] = by_row if kind.nested else images
    if videos:
        given |= {"videos": videos, "do_sample_frames": False}
        if kind.timed or kind.name.startswith("qwen3"):
            given["video_metadata"] = [
                {"fps": 2, "total_num_frames": len(v), "frames_indices": list(range(len(v)))}
                for v in videos
            ]
    make = processor.tokenizer if kind.pictured and not images else processor
    made = dict(make(**given))
    made.pop("labels", None)  # which some make of a prompt, all of them -100
    # Some give bfloat16, whatever the model is.
    return {name: x.float() if x.is_floating_point() else x for name, x in made.items()}
