"""A tiny CLIP whose vision tower is that of a tiny LLaVA, with a tokenizer, saved to disk."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase, digits, punctuation
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer

LONGEST = 40  # tokens of a text


def tokenizer() -> CLIPTokenizer:
    """One token for each sign."""
    signs = [*ascii_lowercase, *digits, *punctuation]
    names = ["<pad>", *signs, *(f"{one}</w>" for one in signs), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: n for n, name in enumerate(names)}, merges=[])


def saved_clip(folder: Path, tower: Any, **sizes: Any) -> Path:
    """The folder of a CLIP with the vision ``tower`` of a model; ``sizes`` of another tower."""
    words = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LONGEST,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        initializer_range=0.3,
    )
    vision = tower.config.to_dict() | sizes
    torch.manual_seed(5)
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=20)
    )
    torch.nn.init.normal_(model.visual_projection.weight)
    if not sizes:
        own, prefix = tower.state_dict(), "vision_model."  # which transformers 5.19 has
        nested = next(iter(model.vision_model.state_dict())).startswith(prefix)
        plain = {key.removeprefix(prefix): one for key, one in own.items()}
        plain["post_layernorm.weight"].normal_()  # in both: LLaVA never reads it
        model.vision_model.load_state_dict(
            {prefix * nested + key: one for key, one in plain.items()}
        )
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
