"""The real Qwen2.5-VL processor, built from nothing and saved beside the tiny model."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from tests.support.qwen import END, IMAGE, MERGE, PATCH, START, TIME, VIDEO, qwen

#: Like the published one: every part in its place, images and videos between their marks.
TEMPLATE = """\
{%- for message in messages -%}
<|im_start|> {{ message['role'] }}
{% for part in message['content'] %}
{%- if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>
{%- else %} {{ part['text'] }}
{%- endif %}
{%- endfor %} <|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|> assistant
{% endif %}"""
SPECIAL = {
    "<|endoftext|>": 0,
    "<|im_start|>": 1,
    "<|im_end|>": 127,
    "<|image_pad|>": IMAGE,
    "<|video_pad|>": VIDEO,
    "<|vision_start|>": START,
    "<|vision_end|>": END,
}
WORDS = ("<unk>", "user", "assistant", "what", "is", "this", "?", "a", "b", "in", "moves")


def save_qwen(folder: Path) -> None:
    """The tiny model with its processor; 16 to 100 visual tokens per image or frame pair."""
    words = {**SPECIAL, **{word: 3 + number for number, word in enumerate(WORDS)}}
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        additional_special_tokens=[word for word in SPECIAL if word.startswith("<|v")]
        + ["<|image_pad|>", "<|im_start|>"],
        padding_side="left",
    )
    cell = (PATCH * MERGE) ** 2
    sizes = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": TIME,
        "size": {"shortest_edge": 16 * cell, "longest_edge": 100 * cell},
    }
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=TEMPLATE,
    )
    qwen().save_pretrained(folder)
    processor.save_pretrained(folder)
