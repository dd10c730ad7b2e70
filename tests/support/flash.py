"""What FlashAttention does with what it is given, on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "flash_attention_2"


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_ids: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal from the lower right; a 2-D mask says which keys are there; positions of one row that
    are not consecutive would be read as packed sequences."""
    rows, _, queries, width = query.shape
    keys = key.shape[2]
    if position_ids is not None and rows == 1 and queries > 1:
        assert bool((position_ids.diff() == 1).all()), "read as packed sequences"
    see = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)[None, None]
    if attention_mask is not None:
        assert attention_mask.shape == (rows, keys), "not one entry for each key"
        see = see & attention_mask.bool()[:, None, None]
    key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], 1) for one in (key, value))
    logits = query.float() @ key.float().mT * (width**-0.5 if scaling is None else scaling)
    weights = logits.masked_fill(~see, torch.finfo(torch.float32).min).softmax(-1)
    return (weights @ value.float()).to(query.dtype).transpose(1, 2).contiguous(), None


def stand_in(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the language model of ``model`` think that it has FlashAttention."""
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, NAME, attend)
    monkeypatch.setattr(model.config.get_text_config(), "_attn_implementation", NAME)
