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
    MergerShape,
    ModelShape,
    ProjectorShape,
    WindowedShape,
    read_shape,
)
from prunus.grid import Grid

FORMULA = (
    "FLOPs = 2 x MACs of matrix products; per decoder layer with n tokens: "
    "2nd*h*hd*(1+h_kv/h) projections + 2n^2*h*hd attention (full map, no causal half) "
    "+ 3ndm SwiGLU; executed tower blocks: 4nd^2 + 2n^2d + 2ndm (gated: 3ndm; n^2 summed over the "
    "windows or frames that attend), patch embedding; projector or merger; "
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


def encoder_macs(
    shape: EncoderShape | WindowedShape,
    lengths: Sequence[int] | None = None,
    grid: Grid | None = None,
) -> int:
    """MACs of the vision tower for one image.

    Args:
        shape: sizes of the tower.
        lengths: tokens that run through each block, for methods that merge inside the tower;
            by default all of them everywhere.
        grid: of the visual tokens, for a tower that takes images of any size.

    Raises:
        ValueError: not one length per block; a tower that needs the grid and was given none, or
            lengths, whose distribution over its windows nobody has said.
    """
    if isinstance(shape, WindowedShape):
        if lengths is not None:
            raise ValueError("tokens per block do not say how many each window lost")
        return _windowed_macs(shape, _needed(grid))
    lengths = [shape.tokens] * shape.layers if lengths is None else lengths
    if len(lengths) != shape.layers:
        raise ValueError(f"{len(lengths)} lengths given for {shape.layers} tower blocks")
    d = shape.width
    total = shape.patches * shape.patch_inputs * d
    for n in lengths:
        total += 4 * n * d * d + 2 * n * n * d + 2 * n * d * shape.ffn
    if shape.pooling_head:
        n = lengths[-1] if lengths else shape.tokens
        total += 2 * d * d + 2 * n * d * d + 2 * n * d + 2 * d * shape.ffn
    return total


def _windowed_macs(shape: WindowedShape, grid: Grid) -> int:
    d, unit = shape.width, shape.merge**2
    patches = grid.size * unit
    per_frame = grid.rows * grid.cols * unit
    # Windows at the right and lower border are smaller, not padded.
    windows = [
        height * width * unit
        for height in _pieces(grid.rows, shape.window)
        for width in _pieces(grid.cols, shape.window)
    ]
    pairs = {True: per_frame**2, False: sum(window**2 for window in windows)}
    total = patches * shape.patch_inputs * d
    for block in range(shape.layers):
        attention = 2 * grid.frames * pairs[block in shape.full] * d
        total += 4 * patches * d * d + attention + 3 * patches * d * shape.ffn
    return total


def _pieces(side: int, window: int) -> list[int]:
    """Sides of the windows that cover ``side`` tokens."""
    whole, rest = divmod(side, window)
    return [window] * whole + [rest] * (rest > 0)


def _needed(grid: Grid | None) -> Grid:
    if grid is None:
        raise ValueError("the cost of this tower depends on the size of each image: give its grid")
    return grid


def projector_macs(
    shape: ProjectorShape | MergerShape, tokens: int | None = None, grid: Grid | None = None
) -> int:
    """MACs of the projector for one image of ``tokens`` tokens (default: all of them).

    Raises:
        ValueError: neither the tokens nor the ``grid`` of an image of any size are given.
    """
    if isinstance(shape, MergerShape):
        count = _needed(grid).size if tokens is None else tokens
        return count * shape.inputs * (shape.inputs + shape.width)
    return (shape.tokens if tokens is None else tokens) * shape.width * (shape.inputs + shape.width)


def prefill_flops(
    config: Any,
    per_layer_lengths: Sequence[int],
    images: int | Sequence[Grid] = 1,
    *,
    encoder_lengths: Sequence[int] | None = None,
    method_macs: float = 0.0,
) -> dict[str, float]:
    """FLOPs of the prefill of one sample, by component.

    Args:
        config: a Hugging Face configuration, or a :class:`ModelShape`.
        per_layer_lengths: tokens (visual *and* text) that run through each decoder layer.
        images: number of images of the sample, or their grids (which a tower for images of any
            size needs); each costs one pass of tower and projector.
        encoder_lengths: tokens per tower block of each image (default: all).
        method_macs: MACs that the pruning method itself spends.

    Returns:
        ``encoder``, ``projector``, ``method``, ``llm`` and their sum ``total``, in FLOPs.

    Raises:
        ValueError: an unknown architecture, or not one length per layer.
    """
    shape = config if isinstance(config, ModelShape) else read_shape(config)
    grids: Sequence[Grid | None] = [None] * images if isinstance(images, int) else images
    parts = {
        "encoder": 2.0 * sum(encoder_macs(shape.encoder, encoder_lengths, g) for g in grids),
        "projector": 2.0 * sum(projector_macs(shape.projector, grid=g) for g in grids),
        "method": 2.0 * method_macs,
        "llm": 2.0 * decoder_macs(shape.decoder, per_layer_lengths),
    }
    return {**parts, "total": sum(parts.values())}
