"""Analytic cost of the prefill: matrix products only, each component by itself.

Multiply-accumulates (MACs) are counted first, FLOPs are twice that. Attention is counted as the
full n x n map, as the papers do, though a causal kernel may skip half of it. Norms, softmax,
activations, rotary embeddings, the embedding look-up and the language-model head are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunus.cost.tower import Step, needed, tower_work
from prunus.errors import PrunusError
from prunus.families import model_types
from prunus.families.shapes import (
    DecoderShape,
    EncoderShape,
    ModelShape,
    ProjectorShape,
    TowerShape,
    WindowedShape,
)
from prunus.grid import Grid

FORMULA = (
    "FLOPs = 2 x MACs of matrix products; per decoder layer with n tokens: "
    "2nd*h*hd*(1+h_kv/h) projections + 2n^2*h*hd attention (full map, no causal half) "
    "+ 3ndm SwiGLU (of the experts that a token is sent to); low-rank keys, linear attention "
    "(by chunks) and inputs by layer as their own products; executed tower blocks: "
    "4nd^2 + 2n^2d + 2ndm (gated: 3ndm; n^2 summed over the windows or frames that attend), "
    "patch embedding; projector or merger; "
    "method = scoring; text tokens included; norms and LM head left out"
)


def read_shape(config: Any) -> ModelShape:
    """Sizes of a model: of its decoder, and what its family says of its tower and projector.

    Raises:
        PrunusError: a configuration of no known family, or one that does not say enough.
    """
    known, kind = model_types(), getattr(config, "model_type", type(config).__name__)
    if kind not in known:
        raise PrunusError(
            f"cannot count the cost of a {kind!r} model: known are {', '.join(sorted(known))}"
        )
    return ModelShape(known[kind].decoder_shape(config), *known[kind].tower_shapes(config))


def decoder_layer_macs(shape: DecoderShape, tokens: int, layer: int = 0) -> int:
    """MACs of one decoder layer over ``tokens`` tokens (visual and text) of one sample."""
    routed = shape.routers[layer] if shape.routers else 0
    feed_forward = tokens * shape.width * (shape.ffn_matrices * shape.inside(layer) + routed)
    return shape.mixer(layer).macs(tokens) + feed_forward + tokens * shape.along


def decoder_macs(shape: DecoderShape, lengths: Sequence[int], entering: int | None = None) -> int:
    """MACs of the language model when layer ``l`` runs over ``lengths[l]`` tokens, and what is in
    front of them over ``entering`` (default: those of the first layer).

    Raises:
        PrunusError: not one length per decoder layer.
    """
    if len(lengths) != shape.layers:
        raise PrunusError(f"{len(lengths)} lengths given for {shape.layers} decoder layers")
    first = shape.entering * (lengths[0] if entering is None else entering)
    return first + sum(decoder_layer_macs(shape, n, layer) for layer, n in enumerate(lengths))


def encoder_macs(
    shape: TowerShape,
    grid: Grid | None = None,
    steps: Sequence[Step] = (),
) -> int:
    """MACs of the vision tower for one image.

    Args:
        shape: sizes of the tower.
        grid: of the visual tokens, for a tower that takes images of any size.
        steps: merges inside the tower, by which later work gets less (see
            :func:`prunus.cost.tower.tower_work`).

    Raises:
        PrunusError: a tower that needs the grid and was given none.
    """
    work = tower_work(shape, grid, steps)
    d = shape.width
    matrices = shape.ffn_matrices if isinstance(shape, WindowedShape) else 2  # gated or plain MLP
    total = _embedded(shape, grid) * shape.patch_inputs * d
    for block in work:
        total += 4 * block.attended * d * d + 2 * block.pairs * d
        total += matrices * block.fed * d * shape.ffn
    if isinstance(shape, EncoderShape) and shape.pooling_head:
        n = work[-1].fed if work else shape.tokens
        total += 2 * d * d + 2 * n * d * d + 2 * n * d + 2 * d * shape.ffn
    return total


def _embedded(shape: TowerShape, grid: Grid | None) -> int:
    """Patches that are embedded."""
    if isinstance(shape, EncoderShape):
        return shape.patches
    return needed(grid).size * shape.patches(needed(grid))


def projector_macs(
    shape: ProjectorShape, grid: Grid | None = None, steps: Sequence[Step] = ()
) -> int:
    """MACs of the projector for one image, of which the tokens of ``steps`` were merged away inside
    the tower; of those that read earlier blocks, with the tokens that were there.

    Raises:
        PrunusError: a projector that needs the ``grid`` and was given none.
    """
    rows = shape.rows
    if rows is None:
        rows = needed(grid).size
    elif not isinstance(rows, int):
        rows = rows(needed(grid))

    def left(block: int | None) -> int:
        gone = sum(len(own) for at, own, _ in steps if block is None or at <= block)
        return rows if shape.whole else rows - gone

    beside = 0 if shape.beside is None else shape.beside(needed(grid))
    return beside + left(None) * shape.macs + sum(left(block) * macs for block, macs in shape.early)


def prefill_flops(
    config: Any,
    per_layer_lengths: Sequence[int],
    images: int | Sequence[Grid] = 1,
    *,
    merges: Sequence[Sequence[Step]] | None = None,
    method_macs: float = 0.0,
    saved_macs: float = 0.0,
    entering: int | None = None,
) -> dict[str, float]:
    """FLOPs of the prefill of one sample, by component.

    Args:
        config: a Hugging Face configuration, or a :class:`ModelShape`.
        per_layer_lengths: tokens (visual *and* text) that run through each decoder layer.
        images: number of images of the sample, or their grids (which a tower for images of any
            size needs); each costs one pass of tower and projector. Of an image in tiles, each tile
            is one (:meth:`prunus.families.Family.tower_grids`).
        merges: for each image, what a method merged inside the tower (default: nothing).
        method_macs: MACs that the pruning method itself spends; saved_macs: those of attention in
            the language model that it saves by other means than shorter layers.
        entering: tokens of the whole prompt (default: those of the first layer).

    Returns:
        ``encoder``, ``projector``, ``method``, ``llm`` and their sum ``total``, in FLOPs.

    Raises:
        PrunusError: an unknown architecture, not one length per layer, not one list of merges per
            image.
    """
    shape = config if isinstance(config, ModelShape) else read_shape(config)
    grids: Sequence[Grid | None] = [None] * images if isinstance(images, int) else images
    steps: Sequence[Sequence[Step]] = [()] * len(grids) if merges is None else merges
    if len(steps) != len(grids):
        raise PrunusError(f"merges of {len(steps)} images given for {len(grids)} images")
    encoder, projector = 0, 0
    for grid, own in zip(grids, steps, strict=True):
        encoder += encoder_macs(shape.encoder, grid, own)
        projector += projector_macs(shape.projector, grid, own)
    parts = {
        "encoder": 2.0 * encoder,
        "projector": 2.0 * projector,
        "method": 2.0 * method_macs,
        "llm": 2.0 * (decoder_macs(shape.decoder, per_layer_lengths, entering) - saved_macs),
    }
    return {**parts, "total": sum(parts.values())}
