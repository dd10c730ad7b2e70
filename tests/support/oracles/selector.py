"""The oracle for learned selectors: one sample at a time, nothing cached, every step from scratch.

Only the weights of prunus.selector's modules are used. Attention is computed query by query and
head by head; at each step of the pointer the whole sequence of steps so far runs again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


def linear(rows: Tensor, layer: Any) -> Tensor:
    return rows @ layer.weight.T + layer.bias


def norm(rows: Tensor, layer: Any) -> Tensor:
    centred = rows - rows.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
    return centred / scale * layer.weight + layer.bias


def mlp(rows: Tensor, layers: Any) -> Tensor:
    inner = linear(norm(rows, layers[0]), layers[1])
    return linear(inner * (1 + torch.erf(inner / math.sqrt(2))) / 2, layers[3])


def attention(
    heads: Any, asking: Tensor, rows: Tensor, sees: Callable[[int, int], bool]
) -> tuple[Tensor, list[list[Tensor]]]:
    """Output ``[Q, D]``, and logits ``[query][head]`` over all rows."""
    width = asking.shape[1] // heads.heads
    query, key, value = linear(asking, heads.query), linear(rows, heads.key), None
    value = linear(rows, heads.value)
    outputs, logits = [], []
    for q in range(len(asking)):
        seen = [s for s in range(len(rows)) if sees(q, s)]
        mixed, own = [], []
        for head in range(heads.heads):
            part = slice(head * width, (head + 1) * width)
            own.append(key[:, part] @ query[q, part] / math.sqrt(width))
            weights = torch.exp(own[-1][seen] - own[-1][seen].max())
            mixed.append(weights / weights.sum() @ value[seen, part])
        outputs.append(torch.cat(mixed))
        logits.append(own)
    return linear(torch.stack(outputs), heads.output), logits


def encode(encoder: Any, features: Tensor, words: Tensor, gate: float = 1.0) -> Tensor:
    """``features [N, D_v]`` and ``words [L, D_t]``, all of them there, to ``[N, D]``."""
    rows = linear(features, encoder.inward) if hasattr(encoder.inward, "weight") else features
    width = rows.shape[1]
    asked = []
    for number, word in enumerate(words):
        wave = []
        for pair in range(width // 2):
            angle = number / 10_000 ** (2 * pair / width)
            wave += [math.sin(angle), math.cos(angle)]
        own = gate * norm(linear(word, encoder.text), encoder.text_norm) + encoder.text_type
        asked.append(own + torch.tensor(wave, dtype=own.dtype))
    states = torch.stack([*rows, *asked])
    for block in encoder.blocks:
        normed = norm(states, block.norm)
        mixed, _ = attention(
            block.attention, normed, normed, lambda q, s: s <= q or not encoder.causal
        )
        states = states + mixed
        states = states + mlp(states, block.mlp)
    return states[: len(features)]


@dataclass
class Walk:
    """Picks (STOP is slot N) and probabilities ``[N + 1]`` of every step that ran; the tokens in
    the order picked."""

    picks: list[int] = field(default_factory=list)
    probs: list[Tensor] = field(default_factory=list)
    order: list[int] = field(default_factory=list)


def walk(
    pointer: Any,
    encoded: Tensor,
    most: int,
    keep: int | None = None,
    bias: float = 0.0,
    frozen: Walk | None = None,
) -> Walk:
    """The pointer on ``encoded [N, D]`` until STOP, ``most`` steps or exactly ``keep``.

    With ``frozen`` picks and detached probabilities are those of an earlier walk, so that what is
    left is a smooth function whose true derivative the straight-through gradient is to be.
    """
    config, size = pointer.config, len(encoded)
    rows = torch.cat([norm(encoded, pointer.norm_memory), pointer.stop[None]])
    states, found = [pointer.start], Walk()
    for step in range(most if keep is None else keep):
        x = torch.stack(states)
        for block in pointer.blocks:
            normed = norm(x, block.norm1)
            x = x + attention(block.own, normed, normed, lambda q, s: s <= q)[0]
            mixed, cross = attention(block.cross, norm(x, block.norm2), rows, lambda q, s: True)
            x = x + mixed
            x = x + mlp(x, block.mlp)
        if config.pointer == "cross":
            logits = torch.stack(cross[-1]).mean(0)
        else:
            query = linear(norm(x[-1], pointer.norm), pointer.query)
            logits = linear(rows, pointer.key) @ query / math.sqrt(rows.shape[1])
        if config.clip:
            logits = config.clip * torch.tanh(logits / config.clip)
        logits = torch.cat([logits[:-1], logits[-1:] + pointer.stop_bias + bias])
        logits = logits / config.temperature
        allowed = [slot for slot in range(size) if slot not in found.picks]
        if keep is None and step >= config.min_steps:
            allowed.append(size)
        weights = torch.exp(logits[allowed] - logits[allowed].max())
        p = torch.zeros(size + 1, dtype=rows.dtype).index_put(
            (torch.tensor(allowed),), weights / weights.sum()
        )
        pick = int(p.argmax()) if frozen is None else frozen.picks[step]
        found.picks.append(pick)
        found.probs.append(p)
        if pick == size:
            break
        found.order.append(pick)
        held = p.detach() if frozen is None else frozen.probs[step].detach()
        states.append(rows[pick] + (p - held) @ rows)
    return found
