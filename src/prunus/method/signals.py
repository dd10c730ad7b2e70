"""What a method may ask to see. A signal is a value: ``view[Attention(1)]`` is the tensor.

Each says what the engine has to keep for it while the model runs, and how it is read from that, so
that a new one is one small class. Shapes: G images of one group, n visual tokens of each, T tokens
of text (the longest of the G), D channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from prunus.errors import PrunusError
from prunus.method.source import (
    Block,
    Companion,
    Embedded,
    Heads,
    Layer,
    Of,
    Passed,
    Rows,
    Signal,
    Source,
    Tower,
    Turns,
)
from prunus.method.words import Words
from prunus.signals.attention import ByHead, over_heads
from prunus.signals.influence import Influence

__all__ = [
    "Ahead",
    "Attention",
    "Block",
    "Companion",
    "Embedded",
    "Embeddings",
    "Features",
    "Heads",
    "Keys",
    "Layer",
    "LeaveOneOut",
    "Of",
    "Passed",
    "PromptMask",
    "Queries",
    "Question",
    "Rotary",
    "Rows",
    "Signal",
    "Source",
    "States",
    "Summary",
    "TextMask",
    "Tower",
    "TowerAttention",
    "TowerKeys",
    "Turns",
    "ValueNorm",
    "Values",
]


@dataclass(frozen=True)
class States(Signal[Tensor]):
    """Hidden states ``[G, n, D]`` in the model's dtype, entering this place, or entering the
    earlier decoder ``layer``; ``of`` the text behind the image ``[G, T, D]`` instead; ``normed``:
    behind the language model's last norm (DART)."""

    layer: int | None = None
    of: Of = "visual"
    normed: bool = False

    @property
    def asks(self) -> bool:
        return self.of != "visual"

    def read(self, source: Source) -> Tensor:
        there = source.layer(self.layer)
        states = there.pick(there.states, self.of)
        return source.normed(states) if self.normed else states


@dataclass(frozen=True)
class Ahead(Signal[Passed]):
    """:class:`Passed`: what the first decoder layer makes of each image's visual tokens, were the
    prompt nothing but these, at their positions counted from the image's first one. It runs for
    that beside the model's own pass, without anybody's hooks and in evaluation mode. For cuts
    before the language model; what the prompt says makes no difference.

    Refused for models whose visual tokens see what stands behind them, or are given more than their
    embeddings (DeepStack, inputs by layer).
    """

    ahead: ClassVar[bool] = True

    def read(self, source: Source) -> Passed:
        return source.ahead()


@dataclass(frozen=True)
class TextMask(Signal[Tensor]):
    """Bool ``[G, T]``: which of the T places of text signals hold a token of that image's prompt.
    With ``question`` only those of the user's question, without the chat template's."""

    question: bool = False

    @property
    def words(self) -> bool:
        return self.question

    @property
    def asks(self) -> bool:
        return True

    def read(self, source: Source) -> Tensor:
        return source.text(self.question)


@dataclass(frozen=True)
class PromptMask(Signal[Tensor]):
    """Bool ``[G, P]``: which of the P places of signals ``of`` the "prompt" hold a token."""

    @property
    def asks(self) -> bool:
        return True

    def read(self, source: Source) -> Tensor:
        return source.prompt()


@dataclass(frozen=True)
class Rotary(Signal[Turns]):
    """:class:`Turns`: what rotary embeddings say of where the visual tokens are (or the text behind
    the image: T tokens), in decoder ``layer``, asked of the model's own module in fp32. Positions
    count from the first token of the prompt, so that padding does not matter."""

    layer: int
    of: Of = "visual"

    @property
    def asks(self) -> bool:
        return self.of == "text"

    def read(self, source: Source) -> Turns:
        return source.turns(self.layer, self.of)


@dataclass(frozen=True)
class Attention(Signal[Tensor]):
    """Float32: post-softmax attention in decoder ``layer`` to each of the image's tokens.

    ``[G, n]`` for the last prompt token, mean over heads, unless: ``rows`` names others, of which
    the mean is taken, or with ``each`` ``[G, R, n]``; ``heads`` is "max" instead of "mean", in each
    row before the mean over rows, or "each" (``[G, H, ...]``). Query rows are computed beside the
    model's own kernel, for a mean in pieces: a map is never made. ``layer`` may be the one that is
    about to run at this cut (PyramidDrop): it then runs up to its attention function on what is
    there now.

    The mean over rows is refused for an image with no such row (no text stands behind it), and
    "next" where that token, or the image, sees what stands behind the token.
    """

    layer: int
    rows: Rows = "last"
    heads: ByHead = "mean"
    each: bool = False

    @property
    def keeps(self) -> Literal["states", "row", "all"]:  # type: ignore[override]
        return "row" if self.rows == "last" else "all"

    @property
    def words(self) -> bool:
        return self.rows == "question"

    @property
    def asks(self) -> bool:
        return self.rows != "visual"

    def read(self, source: Source) -> Tensor:
        there = source.layer(self.layer)
        if self.rows == "last" and self.heads == "mean" and not self.each:
            return there.last()
        if not self.each:
            return there.mean(self.rows, self.heads)
        weights = over_heads(there.rows(self.rows)[0], self.heads)
        return weights if self.heads == "each" else weights.squeeze(1)


@dataclass(frozen=True)
class Keys(Signal[Tensor]):
    """``[G, n, H_kv, d]`` keys of decoder ``layer`` as its attention function was given them (after
    rotary embedding), or ``[G, T, H_kv, d]`` ``of`` the text."""

    layer: int
    of: Of = "visual"
    keeps: ClassVar[Literal["states", "row", "all"]] = "row"

    @property
    def asks(self) -> bool:
        return self.of != "visual"

    def read(self, source: Source) -> Tensor:
        there = source.layer(self.layer)
        return there.pick(there.given.key.transpose(1, 2), self.of)


@dataclass(frozen=True)
class Queries(Signal[Tensor]):
    """``[G, n, H, d]`` queries of decoder ``layer``, after rotary embedding; see :class:`Keys`."""

    layer: int
    of: Of = "visual"
    keeps: ClassVar[Literal["states", "row", "all"]] = "all"

    @property
    def asks(self) -> bool:
        return self.of != "visual"

    def read(self, source: Source) -> Tensor:
        there = source.layer(self.layer)
        return there.pick(there.given.query.transpose(1, 2), self.of)


@dataclass(frozen=True)
class Values(Signal[Tensor]):
    """``[G, n, H_kv, d_v]`` values of decoder ``layer``; see :class:`Keys`."""

    layer: int
    of: Of = "visual"
    keeps: ClassVar[Literal["states", "row", "all"]] = "row"

    @property
    def asks(self) -> bool:
        return self.of != "visual"

    def read(self, source: Source) -> Tensor:
        there = source.layer(self.layer)
        return there.pick(there.given.value.transpose(1, 2), self.of)


@dataclass(frozen=True)
class LeaveOneOut(Signal[Influence]):
    """:class:`~prunus.signals.influence.Influence` of each token on the last prompt token's
    attention output in decoder ``layer``, in fp32 (VisiPruner, arXiv 2510.17205, Eqs. 5-7)."""

    layer: int
    keeps: ClassVar[Literal["states", "row", "all"]] = "row"

    @property
    def asks(self) -> bool:
        return True

    def read(self, source: Source) -> Influence:
        return source.layer(self.layer).influence()


@dataclass(frozen=True)
class ValueNorm(Signal[Tensor]):
    """Float32 ``[G, n]``: L1 norm of each token's value in decoder ``layer``, summed over all query
    heads (VisiPruner's measure of attention sinks, appendix E)."""

    layer: int
    keeps: ClassVar[Literal["states", "row", "all"]] = "row"

    def read(self, source: Source) -> Tensor:
        there = source.layer(self.layer)
        value, heads = there.given.value, there.given.query.shape[1]
        norms = value.float().abs().sum((1, 3)) * (heads // value.shape[1])
        return there.pick(norms)


@dataclass(frozen=True)
class Features(Signal[Tensor]):
    """Visual features ``[G, n, D]`` as a learned selector reads them, before the language model:
    where the family has one row per token before the projector, what enters it; else the projected
    tokens."""

    tower: ClassVar[Literal["", "features", "block"]] = "features"

    def read(self, source: Source) -> Tensor:
        return source.features()


@dataclass(frozen=True)
class Summary(Signal["Tensor | None"]):
    """``[G, 1, D]``: the tower's CLS feature beside :class:`Features`, or None where there is
    none."""

    tower: ClassVar[Literal["", "features", "block"]] = "features"
    summary: ClassVar[bool] = True

    def read(self, source: Source) -> Tensor | None:
        return source.summary()


@dataclass(frozen=True)
class TowerAttention(Signal[Tensor]):
    """Float32 ``[G, n]``: attention that each token gets in a ``block`` of the vision tower
    (:data:`Block`). ``rows="summary"``: the CLS token's row, mean over heads, all keys in the
    softmax; where there is no CLS token, and with ``"all"``, the mean over all queries.
    ``heads="joined"``: the CLS token's row of one softmax over the products of all heads' queries
    and keys side by side (PruMerge), before rotary embedding; without a CLS token as "mean".

    Raises:
        PrunusError: heads of all rows are to be joined.
    """

    block: Block = None
    rows: Literal["summary", "all"] = "summary"
    heads: Heads = "mean"
    tower: ClassVar[Literal["", "features", "block"]] = "block"

    def __post_init__(self) -> None:
        if self.heads == "joined" and self.rows == "all":
            raise PrunusError("TowerAttention: heads='joined' is for rows='summary'")

    @property
    def kept_as(self) -> str:  # type: ignore[override]
        return self._name

    @property
    def _name(self) -> Literal["summary", "all", "joined"]:
        return "joined" if self.heads == "joined" else self.rows

    @property
    def cls(self) -> bool:
        return self.rows == "summary"

    def read(self, source: Source) -> Tensor:
        return source.block(self.block).attention(self._name)


@dataclass(frozen=True)
class TowerKeys(Signal[Tensor]):
    """``[G, n, d]``: attention keys in a ``block`` of the vision tower (:data:`Block`), mean over
    heads (and over the patches of a token), before rotary embedding, or behind it (``rotary``).
    ``heads="joined"``: ``[G, n, H * d]``, those of all heads side by side."""

    block: Block = None
    rotary: bool = False
    heads: Heads = "mean"
    tower: ClassVar[Literal["", "features", "block"]] = "block"

    @property
    def kept_as(self) -> str:  # type: ignore[override]
        return ("rotary" if self.rotary else "keys") + ("-joined" if self.heads == "joined" else "")

    def read(self, source: Source) -> Tensor:
        return source.block(self.block).keys(self.rotary, self.heads == "joined")


@dataclass(frozen=True)
class Question(Signal[Words]):
    """:class:`~prunus.method.words.Words`: the text around the images, the user's question in
    it."""

    @property
    def words(self) -> bool:
        return True

    @property
    def asks(self) -> bool:
        return True

    def read(self, source: Source) -> Words:
        return source.words()


@dataclass(frozen=True)
class Embeddings(Signal[Embedded]):
    """:class:`Embedded`: the image's :class:`Features` and the user's question as text, in the
    space of a ``companion``, which runs beside the model (CDPruner's CLIP). Of ``leaving_off``,
    what the question ends with is not shown to it."""

    companion: Any  # a Companion; until the method is bound, its name
    leaving_off: tuple[str, ...] = ()
    tower: ClassVar[Literal["", "features", "block"]] = "features"

    @property
    def words(self) -> bool:
        return True

    @property
    def asks(self) -> bool:
        return True

    def read(self, source: Source) -> Embedded:
        companion: Companion = self.companion
        return companion.embed(source.features(), source.words().spoken(self.leaving_off))
