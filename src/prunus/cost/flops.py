"""Analytic cost of the prefill: matrix products only, each component by itself.

Multiply-accumulates (MACs) are counted first, FLOPs are twice that. Attention is counted as the
full n x n map, as the papers do, though a causal kernel may skip half of it. Norms, softmax,
activations, rotary embeddings, the embedding look-up and the language-model head are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunus.cost.shapes import (
    DecoderShape,
    EncoderShape,
    ModelShape,
    ProjectorShape,
    read_shape,
)

FORMULA = (
    "FLOPs = 2 x MACs of matrix products; per decoder layer with n tokens: "
    "2nd*h*hd*(1+h_kv/h) projections + 2n^2*h*hd attention (full map, no causal half) "
    "+ 3ndm SwiGLU; executed tower blocks: 4nd^2 + 2n^2d + 2ndm, patch embedding; projector; "
    "method = scoring; text tokens included; norms and LM head left out"
)


def decoder_layer_macs(shape: DecoderShape, tokens: int) -> int:
    """MACs of one decoder layer over ``tokens`` tokens (visual and text) of one sample."""
    inner = shape.heads * shape.head_dim
    projections = 2 * tokens * shape.width * (inner + shape.kv_heads * shape.head_dim)
    attention = 2 * tokens * tokens * inner
    feed_forward = shape.ffn_matrices * tokens * shape.width * shape.ffn
    return projections + attention + feed_forward


def decoder_macs(shape: DecoderShape, lengths: Sequence[int]) -> int:
    """MACs of the language model when layer ``l`` runs over ``lengths[l]`` tokens.

    Raises:
        ValueError: not one length per decoder layer.
    """
    if len(lengths) != shape.layers:
        raise ValueError(f"{len(lengths)} lengths given for {shape.layers} decoder layers")
    return sum(decoder_layer_macs(shape, n) for n in lengths)


Length = int | tuple[int, int]
"""Tokens that run through a block; or through its attention and through its MLP, where some merge
between the two."""


def encoder_macs(shape: EncoderShape, lengths: Sequence[Length] | None = None) -> int:
    """MACs of the vision tower for one image.

    Args:
        shape: sizes of the tower.
        lengths: tokens (CLS among them) that run through each block, for methods that merge
            inside the tower; by default all of them everywhere.

    Raises:
        ValueError: not one length per block.
    """
    lengths = [shape.tokens] * shape.layers if lengths is None else lengths
    if len(lengths) != shape.layers:
        raise ValueError(f"{len(lengths)} lengths given for {shape.layers} tower blocks")
    d = shape.width
    total = shape.patches * shape.patch_inputs * d
    n = shape.tokens
    for length in lengths:
        before, n = length if isinstance(length, tuple) else (length, length)
        total += 4 * before * d * d + 2 * before * before * d + 2 * n * d * shape.ffn
    if shape.pooling_head:
        total += 2 * d * d + 2 * n * d * d + 2 * n * d + 2 * d * shape.ffn
    return total


def projector_macs(shape: ProjectorShape, tokens: int | None = None) -> int:
    """MACs of the projector for one image of ``tokens`` tokens (default: all of them)."""
    return (shape.tokens if tokens is None else tokens) * shape.width * (shape.inputs + shape.width)


def prefill_flops(
    config: Any,
    per_layer_lengths: Sequence[int],
    images: int = 1,
    *,
    encoder_lengths: Sequence[Length] | None = None,
    projector_tokens: int | None = None,
    method_macs: float = 0.0,
) -> dict[str, float]:
    """FLOPs of the prefill of one sample, by component.

    Args:
        config: a Hugging Face configuration, or a :class:`ModelShape`.
        per_layer_lengths: tokens (visual *and* text) that run through each decoder layer.
        images: number of images of the sample; each costs one pass of tower and projector.
        encoder_lengths: tokens per tower block of each image (default: all), as in
            :func:`encoder_macs`.
        projector_tokens: tokens of each image that the projector runs on (default: all).
        method_macs: MACs that the pruning method itself spends.

    Returns:
        ``encoder``, ``projector``, ``method``, ``llm`` and their sum ``total``, in FLOPs.

    Raises:
        ValueError: an unknown architecture, or not one length per layer.
    """
    shape = config if isinstance(config, ModelShape) else read_shape(config)
    parts = {
        "encoder": 2.0 * images * encoder_macs(shape.encoder, encoder_lengths),
        "projector": 2.0 * images * projector_macs(shape.projector, projector_tokens),
        "method": 2.0 * method_macs,
        "llm": 2.0 * decoder_macs(shape.decoder, per_layer_lengths),
    }
    return {**parts, "total": sum(parts.values())}
