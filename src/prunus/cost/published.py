"""Cost figures as papers define them, from sizes and counts alone: those of VisiPruner (arXiv
2510.17205v1), one of FitPrune and one of FastV and CLSE.

They are *nominal*: visual tokens only (but for the last), a multiply-add counted once, key/value
heads counted like query heads, and savings charged as the paper charges them, whether or not a
kernel can have them.
:mod:`prunus.cost.flops` counts what a run costs. Counts are those of one sample; for a mean over
samples take the mean of the figures, because neither is linear in the counts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from prunus.errors import PrunusError
from prunus.families.shapes import DecoderShape


def visual_flops(
    shape: DecoderShape, visual: Sequence[float], without_attention: Collection[int] = ()
) -> float:
    """The paper's "TFLOPs" (Table 5, times 1e12): ``4nd^2 + 2n^2d + 3ndm`` for each layer.

    Args:
        shape: sizes of the decoder.
        visual: visual tokens ``n >= 0`` in each decoder layer; fractions are allowed.
        without_attention: layers (0-based) that are charged ``4nd^2 + 3ndm`` only.

    Returns:
        Multiply-adds; twice as much in the FLOPs of :mod:`prunus.cost.flops`.

    Raises:
        PrunusError: not one count per decoder layer, a negative count, a layer that is not there.
    """
    _check(shape, visual)
    if missing := [layer for layer in without_attention if not 0 <= layer < shape.layers]:
        raise PrunusError(
            f"without_attention has layers {missing}, the decoder has 0 to {shape.layers - 1}"
        )
    d = shape.width
    total = 0.0
    for layer, n in enumerate(visual):
        attention = 0.0 if layer in without_attention else 2 * n * n * d
        total += 4 * n * d * d + attention + shape.ffn_matrices * n * d * shape.inside(layer)
    return total


def dense_flops(shape: DecoderShape, original: float) -> float:
    """:func:`visual_flops` of the unpruned model: ``original`` visual tokens in every layer."""
    return visual_flops(shape, [original] * shape.layers)


def fitted_flops(shape: DecoderShape, visual: Sequence[float]) -> float:
    """FitPrune's count (arXiv 2409.10197, released code), where a layer drops tokens between
    attention and MLP: ``3nd^2 + 2n^2d`` for the n visual tokens that enter it, and ``md^2 + 3mdf``
    for the m that leave it, which are those that enter the next; the last leaves all.

    Arguments, result and errors are those of :func:`visual_flops`, which this is where no layer
    drops any.
    """
    _check(shape, visual)
    d, total = shape.width, 0.0
    for layer, (n, m) in enumerate(zip(visual, [*visual[1:], visual[-1]], strict=True)):
        total += 3 * n * d * d + 2 * n * n * d
        total += m * d * d + shape.ffn_matrices * m * d * shape.inside(layer)
    return total


def plain_flops(shape: DecoderShape, lengths: Sequence[float]) -> float:
    """FastV's count, which CLSE's "FLOPs" (Table 5) is a ratio of: ``4nd^2 + 2n^2d + 2ndm`` for
    each layer, with all ``n`` tokens that run through it, text too, and a feed-forward block of two
    matrices whatever the model has.

    Args:
        shape: sizes of the decoder.
        lengths: tokens in each decoder layer; fractions are allowed.

    Raises:
        PrunusError: not one length per decoder layer, or a negative one.
    """
    _check(shape, lengths)
    d, total = shape.width, 0.0
    for layer, n in enumerate(lengths):
        total += 4 * n * d * d + 2 * n * n * d + 2 * n * d * shape.inside(layer)
    return total


def nominal_flops(shape: DecoderShape, original: float, per_layer: Sequence[float]) -> float:
    """:func:`visual_flops` of the pruned model as in appendix M: a layer that still holds all
    visual tokens is charged without attention, one that holds fewer in full, one without any 0.

    Args:
        shape: sizes of the decoder.
        original: visual tokens of the prompt, > 0.
        per_layer: those that run through each decoder layer.

    Raises:
        PrunusError: not one count per decoder layer, or one outside ``[0, original]``.
    """
    _check(shape, per_layer, original)
    whole = [layer for layer, n in enumerate(per_layer) if n == original]
    return visual_flops(shape, per_layer, whole)


def nominal_attention(
    shape: DecoderShape,
    original: float,
    per_layer: Sequence[float],
    *,
    text: float,
    shallow: int,
) -> float:
    """Share of the visual attention that is saved, as printed for VisiPruner itself in Table 6.

    The paper's formula is typeset with errors and has no term for the layers before the filter.
    This is an inferred reading that meets the printed 98.3 % to 0.1 points: of ``2(N^2 + NT)`` in
    each layer of the dense model, the pruned one spends nothing in the ``shallow`` layers, ``NT``
    (text to visual, counted once, no visual self-attention) where all tokens are still there,
    ``2n^2 + nT`` where ``n`` are left. The width of the decoder cancels out.

    Args:
        shape: sizes of the decoder.
        original: visual tokens N of the prompt, > 0.
        per_layer: those that run through each decoder layer.
        text: text tokens T of the prompt (the paper: 74).
        shallow: first layers in which nothing attends to visual tokens (LLaVA-1.5-7B: 6).

    Returns:
        The saved share, at most 1 (where no layer attends to a visual token).

    Raises:
        PrunusError: not one count per decoder layer, or one outside ``[0, original]``; a negative
            ``text``; more ``shallow`` layers than there are.
    """
    _check(shape, per_layer, original, text)
    if not 0 <= shallow <= shape.layers:
        raise PrunusError(f"shallow={shallow}: the decoder has {shape.layers} layers")
    spent = 0.0
    for n in per_layer[shallow:]:
        spent += n * text if n == original else 2 * n * n + n * text
    return 1.0 - spent / (shape.layers * 2 * original * (original + text))


def baseline_attention(
    shape: DecoderShape, original: float, per_layer: Sequence[float], *, text: float
) -> float:
    """Share of the visual attention that is saved, as printed for the baselines in Table 6: a layer
    costs ``n(n + T)``, the same for the dense model and the pruned one.

    Arguments and errors are those of :func:`nominal_attention`.
    """
    _check(shape, per_layer, original, text)
    spent = sum(n * (n + text) for n in per_layer)
    return 1.0 - spent / (shape.layers * original * (original + text))


def _check(
    shape: DecoderShape,
    per_layer: Sequence[float],
    original: float | None = None,
    text: float = 0,
) -> None:
    if len(per_layer) != shape.layers:
        raise PrunusError(f"{len(per_layer)} counts given for {shape.layers} decoder layers")
    if original is not None and original <= 0:
        raise PrunusError(f"original={original}: there must be visual tokens")
    if text < 0:
        raise PrunusError(f"text={text}: there cannot be less than none")
    most = float("inf") if original is None else original
    if wrong := [n for n in per_layer if not 0 <= n <= most]:
        raise PrunusError(f"a layer cannot hold {wrong[0]} visual tokens: 0 to {most} are possible")
