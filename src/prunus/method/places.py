"""Where a method acts: cuts at which tokens go, and edits of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from prunus.method.signals import Signal


@dataclass(frozen=True)
class Cut:
    """One place where a method removes, or joins, visual tokens.

    Args:
        layer: decoder layer (0-based) at whose *input* the tokens go; that layer and all later ones
            run without them. None: before the language model.
        sees: the signals that the method wants to look at (:mod:`prunus.method.signals`), besides
            the states at this place, which are always there. What nobody asks for is not computed.
        trim_cache: also remove the tokens from the KV cache of the earlier layers afterwards.
        space: where new tokens are made that :attr:`Selection.mix` asks for: of the "model"'s
            states at this place, or, before the language model, of the "tower"'s features, which
            the projector then sees (where it reads one row per token; else they are the same).
        whole: the first stage must see every original token of the grid. Behind a method that
            merged some, survivors are spread over the cells that they stand for, and the scores of
            these are averaged.
        compact: from this layer on, positions are closed up to 0, 1, 2, ... (PyramidDrop,
            SparseVLM). Where positions are no line (M-RoPE), they stay as they are.
    """

    layer: int | None
    sees: tuple[Signal[Any], ...] = ()
    trim_cache: bool = False
    space: Literal["model", "tower"] = "model"
    whole: bool = False
    compact: bool = False


@dataclass(frozen=True)
class Edit:
    """What the attention of one decoder layer loses while the prompt is read (later tokens and
    turns attend as the model does).

    Args:
        text: what text tokens behind the first visual token see of the visual ones: everything
            ("keep"), nothing ("cut"), the second half of them ("half"), or nothing but the
            ``sink``, on which each head puts all its weight on visual tokens ("merge").
        visual: what visual tokens see of visual ones: "keep", or "cut" (not even themselves).
        renormalise: take what is cut out before the softmax, so that the rest sums to one and
            what is cut need not be computed. Otherwise weights are set to zero after the softmax
            and their mass is lost, as in the published analyses.
        sink: index of the visual token, among all of a sample, that "merge" chooses; negative
            counts from the end.
    """

    text: Literal["keep", "cut", "half", "merge"] = "keep"
    visual: Literal["keep", "cut"] = "keep"
    renormalise: bool = False
    sink: int = 0
