"""Which words are to rate an image's tokens (SparseVLM, arXiv 2410.04417)."""

from __future__ import annotations

from torch import Tensor, inf


def raters(visual: Tensor, words: Tensor, mask: Tensor) -> Tensor:
    """The words to which an image's tokens are more alike than to the mean word: those whose mean
    over visual tokens of the softmax over words of ``visual @ words`` exceeds the mean of all; all
    words where none does (there is but one, or all are equal).

    Args:
        visual: ``[G, n, D]``; words: ``[G, T, D]``, of which those of ``mask`` (bool ``[G, T]``)
            are there; of any floating dtype, computed in float32.

    Returns:
        bool ``[G, T]``.
    """
    alike = visual.float() @ words.float().transpose(1, 2)
    alike = alike.masked_fill(~mask[:, None], -inf).softmax(-1).mean(1)
    mean = alike.sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    above = (alike > mean) & mask
    return above | (mask & ~above.any(1, keepdim=True))
