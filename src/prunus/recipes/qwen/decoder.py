"""The language model as training runs it: one visual prefix shared by many short dialogues."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from prunus.recipes.decoder import decoder_layer, rms_norm
from prunus.recipes.dialogue import Packed, Style
from prunus.recipes.qwen.words import (
    END,
    START,
    VISION_END,
    VISION_START,
    build_tokenizer,
    vocabulary,
)

#: Tokens before the visual ones: ``<|im_start|>user<|vision_start|>``.
HEAD = 3
#: The first position behind the visual tokens is that of ``<|vision_end|>``; questions follow.
STYLE = Style(
    build_tokenizer,
    head=HEAD + 1,
    prompt=f"{{}}{END}{START}assistant",
    again=f"{START}user ",
    end=END,
)
_START = [vocabulary().index(word) for word in (START, "user", VISION_START)]
_STOP = [vocabulary().index(VISION_END)]


def places(grid: tuple[int, int, int], interval: int = 2) -> Tensor:
    """Time, row and column of each visual token, ``(3, n)`` int64.

    Slices of a video lie ``interval`` apart: two frames at ``tokens_per_second`` and so many
    frames per second.
    """
    frames, rows, cols = grid
    at = (torch.arange(frames) * interval, torch.arange(rows), torch.arange(cols))
    return torch.stack(torch.meshgrid(*at, indexing="ij")).flatten(1)


def decode(
    model: Qwen2_5_VLForConditionalGeneration,
    features: Tensor,
    places: Tensor,
    extent: int,
    text: Packed,
    probe: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Last hidden states ``(b, t, width)`` of the text, normed, ready for ``lm_head``.

    ``features`` ``(b, n, width)`` are visual tokens, ``places`` ``(3, b, n)`` int64 their time,
    row and column, and ``extent`` the longer side of the grid in tokens, behind which the text
    begins. Equal to the unmodified model's forward over each dialogue alone, where all tokens are
    given (tested). With ``probe`` the visual tokens' hidden states ``(b, n + 1, width)`` after so
    many layers are returned too, that of ``<|vision_end|>`` last.
    """
    decoder = model.model.language_model
    batch, visual, _ = features.shape
    table, device = decoder.embed_tokens, features.device
    start = table(torch.tensor([_START], device=device)).expand(batch, -1, -1)
    stop = table(torch.tensor([_STOP], device=device)).expand(batch, -1, -1)
    hidden = torch.cat([start, features.to(start.dtype), stop, table(text.ids)], dim=1)
    head = torch.arange(HEAD, device=device).expand(3, batch, -1)
    tail = torch.full((3, batch, 1), HEAD + extent, device=device)
    positions = [head, places.to(device) + HEAD, tail, text.positions.expand(3, -1, -1)]
    cos, sin = decoder.rotary_emb(hidden, torch.cat(positions, dim=2))
    prefix = HEAD + visual + 1
    mask = text.visible(prefix)
    seen = None
    for depth, layer in enumerate(decoder.layers):
        if depth == probe:
            seen = hidden[:, HEAD:prefix]
        hidden = decoder_layer(layer, hidden, cos[:, None], sin[:, None], prefix, mask)
    return rms_norm(decoder.norm, hidden[:, prefix:]), seen
