"""The first decoder layer of a Llama-like model, read literally: number by number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Vector = list[float]


def first_layer(model: Any, states: Tensor, ids: Sequence[Sequence[int]]) -> Tensor:
    """What the first layer of a language ``model`` makes of the prompt ``states [n, D]``, whose
    token t is at the positions ``ids[t]`` (one number, or time, row and column)."""
    config, layer = model.config, model.layers[0]
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    size = config.hidden_size // heads
    eps = config.rms_norm_eps
    attention, mlp = layer.self_attn, layer.mlp
    axes = _axes(config, size)
    rows = states.double().tolist()
    queries, keys, values = [], [], []
    for row, place in zip(rows, ids, strict=True):
        normed = _normed(row, layer.input_layernorm.weight, eps)
        turn = [place[axes[k]] * _theta(config) ** (-2 * k / size) for k in range(size // 2)]
        queries.append([_turned(h, turn) for h in _split(_linear(attention.q_proj, normed), size)])
        keys.append([_turned(h, turn) for h in _split(_linear(attention.k_proj, normed), size)])
        values.append(_split(_linear(attention.v_proj, normed), size))
    found = []
    for t, row in enumerate(rows):
        seen: Vector = []
        for head in range(heads):
            shared = head * kv_heads // heads
            logits = [
                sum(a * b for a, b in zip(queries[t][head], keys[s][shared], strict=True))
                / math.sqrt(size)
                for s in range(t + 1)  # nothing behind it
            ]
            powers = [math.exp(logit - max(logits)) for logit in logits]
            for channel in range(size):
                mixed = sum(p * values[s][shared][channel] for s, p in enumerate(powers))
                seen.append(mixed / sum(powers))
        middle = [a + b for a, b in zip(row, _linear(attention.o_proj, seen), strict=True)]
        normed = _normed(middle, layer.post_attention_layernorm.weight, eps)
        gates = [g / (1 + math.exp(-g)) for g in _linear(mlp.gate_proj, normed)]
        inner = [g * u for g, u in zip(gates, _linear(mlp.up_proj, normed), strict=True)]
        found.append([a + b for a, b in zip(middle, _linear(mlp.down_proj, inner), strict=True)])
    return torch.tensor(found, dtype=torch.float64).float()


def _axes(config: Any, size: int) -> list[int]:
    """Which of a token's positions turns each pair of channels."""
    sections = config.rope_parameters.get("mrope_section") or [size // 2]
    return [axis for axis, count in enumerate(sections) for _ in range(count)]


def _theta(config: Any) -> float:
    return float(config.rope_parameters["rope_theta"])


def _normed(row: Vector, weight: Tensor, eps: float) -> Vector:
    root = math.sqrt(sum(one * one for one in row) / len(row) + eps)
    return [one / root * w for one, w in zip(row, weight.tolist(), strict=True)]


def _linear(module: Any, row: Vector) -> Vector:
    bias = [0.0] * len(module.weight) if module.bias is None else module.bias.tolist()
    return [
        sum(w * one for w, one in zip(weights, row, strict=True)) + b
        for weights, b in zip(module.weight.tolist(), bias, strict=True)
    ]


def _split(row: Vector, size: int) -> list[Vector]:
    return [row[start : start + size] for start in range(0, len(row), size)]


def _turned(row: Vector, angles: Vector) -> Vector:
    """Channel k and the one half a head further are a point, which is turned."""
    half = len(row) // 2
    turns = [(math.cos(a), math.sin(a), row[k], row[k + half]) for k, a in enumerate(angles)]
    first = [x * cos - y * sin for cos, sin, x, y in turns]
    return first + [y * cos + x * sin for cos, sin, x, y in turns]
