"""Warm start: the language model of ``tiny-qwen`` begins as that of ``tiny-llava``."""

from __future__ import annotations

import torch
from transformers import LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration

from prunus.errors import PrunusError
from prunus.recipes.qwen.words import SAME, vocabulary
from prunus.tasks import words as llava

_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


@torch.no_grad()
def start_from(
    model: Qwen2_5_VLForConditionalGeneration, teacher: LlavaForConditionalGeneration
) -> None:
    """Copy layers, norms, and the embeddings and output rows of the words that both know.

    The biases of queries, keys and values, which Llama does not have, become zero; words that the
    teacher does not know keep their random rows.

    Raises:
        PrunusError: the two language models differ in shape.
    """
    own, other = model.model.language_model, teacher.model.language_model
    for name in _SIZES:
        mine, theirs = getattr(own.config, name), getattr(other.config, name)
        if mine != theirs:
            raise PrunusError(f"a warm start needs equal shapes: {name} is {mine} and {theirs}")
    weights = other.layers.state_dict()
    for name, weight in own.layers.state_dict().items():
        weight.copy_(weights[name]) if name in weights else weight.zero_()
    own.norm.load_state_dict(other.norm.state_dict())
    ids = {word: index for index, word in enumerate(llava.vocabulary())}
    for index, word in enumerate(vocabulary()):
        known = ids.get(SAME.get(word, word))
        if known is not None:
            own.embed_tokens.weight[index] = other.embed_tokens.weight[known]
            model.lm_head.weight[index] = teacher.lm_head.weight[known]
