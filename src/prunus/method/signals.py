"""What a method may ask to see. A signal is a value: ``view[Attention(1)]`` is the tensor.

Each says what the engine has to keep for it while the model runs, and how it is read from that, so
that a new one is one small class. Shapes: G images of one group, n visual tokens of each, T tokens
of text (the longest of the G), D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

from torch import Tensor

from prunus.errors import PrunusError
from prunus.method.words import Words
from prunus.signals.attention import ByHead, over_heads
from prunus.signals.influence import Influence

T_co = TypeVar("T_co", covariant=True)

#: Which tokens a signal is of: the visual ones of each image, or the text behind it.
Of = Literal["visual", "text", "prompt"]
#: Query rows: the last prompt token; the text of the prompt behind the image; the user's question
#: alone, without the template's tokens; the image's own tokens; the first token of text behind the
#: image, as if the prompt ended there.
Rows = Literal["last", "text", "question", "visual", "next"]
#: A block of the vision tower: its number; a share in [0, 1) of those that reach the projector,
#: rounded down (0.25: block 6 of 24); "next", the first behind these, which the model runs and
#: throws away (where there is none, the last); None, the last, or inside the tower that at hand.
Block = int | float | Literal["next"] | None
#: Queries and keys of a tower: by head, of which the mean is taken; or all heads side by side.
Heads = Literal["mean", "joined"]


class Layer(Protocol):
    """What the engine kept of one decoder layer, for G images: B rows of S slots."""

    @property
    def states(self) -> Tensor:
        """``[B, S, D]``, entering the layer."""

    @property
    def given(self) -> Any:
        """What its attention function was given: ``query``, ``key``, ``value`` ``[B, H, S, d]``."""

    def pick(self, values: Tensor, of: Of = "visual") -> Tensor:
        """Values ``[B, S, ...]`` of the images' tokens: ``[G, n, ...]`` (or ``[G, T, ...]``)."""

    def rows(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Float32 ``[G, H, R, n]``, post-softmax attention of some query rows to the visual tokens,
        and bool ``[G, R]``, which of them are there."""

    def mean(self, rows: Rows, heads: ByHead) -> Tensor:
        """Float32 ``[G, n]``, with ``heads="each"`` ``[G, H, n]``: the mean of these rows that are
        there, heads joined in each of them before. Rows are taken in pieces."""

    def last(self) -> Tensor:
        """Float32 ``[G, n]``: mean over heads of the last prompt token's row."""

    def influence(self) -> Influence:
        """Of the last prompt token's row."""


class Turns(NamedTuple):
    """Float32 ``[G, n, A, F]`` each: cosine and sine of the angle by which a rotary embedding turns
    a token's F channels, for each of the A axes of its position (M-RoPE: time, row, column)."""

    cos: Tensor
    sin: Tensor


class Embedded(NamedTuple):
    """What a companion model makes of G images and their questions, in one space: float32 ``[G, n,
    E]`` of the visual tokens, ``[G, M, E]`` of the questions' parts, bool ``[G, M]``, which of
    these are there, and the multiply-accumulates that this took."""

    visual: Tensor
    text: Tensor
    there: Tensor
    macs: float


class Companion(Protocol):
    """Another model, loaded by a method in ``bind``, that knows what features are about."""

    def embed(self, features: Tensor, questions: Sequence[str]) -> Embedded:
        """Of the tower's ``features [G, n, D]`` and G questions."""


class Tower(Protocol):
    """What the engine kept of one block of the vision tower, for G images."""

    def attention(self, rows: Literal["summary", "all", "joined"]) -> Tensor:
        """Float32 ``[G, n]``."""

    def keys(self, rotary: bool, joined: bool) -> Tensor:
        """``[G, n, d]``, or ``[G, n, H * d]``."""


class Source(Protocol):
    """Where signals are read from: what the engine kept for one group of images."""

    def layer(self, number: int | None) -> Layer:
        """Decoder layer ``number``, or this place."""

    def block(self, number: Block) -> Tower:
        """A block of the vision tower."""

    def features(self) -> Tensor:
        """``[G, n, D]``, as learned selectors read them."""

    def summary(self) -> Tensor | None:
        """``[G, 1, D]``, the tower's CLS feature."""

    def normed(self, states: Tensor) -> Tensor:
        """``states`` behind the language model's last norm."""

    def text(self, question: bool) -> Tensor:
        """Bool ``[G, T]``: which places of text signals hold a token (of the ``question``)."""

    def prompt(self) -> Tensor:
        """Bool ``[G, P]``: which places of prompt signals hold a token."""

    def turns(self, layer: int, of: Of) -> Turns:
        """How visual tokens are turned in decoder ``layer``."""

    def words(self) -> Words:
        """The text around the images."""


class Signal(ABC, Generic[T_co]):
    """Base of all signals, which are frozen dataclasses.

    Attributes:
        layer: the decoder layer that it is of, None where it is of none.
        keeps: what is kept of that layer: nothing but its input "states", the last prompt token's
            "row" of its attention, or "all" that its attention function was given.
        tower: what is kept of the vision tower: nothing (""), what the projector is given
            ("features"), or something of a ``block``,
            by the name ``kept_as``; summary: whether the CLS feature is kept.
        asks: whether its value depends on the question (on anything behind the image).
    """

    layer: int | None = None
    block: Block = None
    keeps: ClassVar[Literal["states", "row", "all"]] = "states"
    tower: ClassVar[Literal["", "features", "block"]] = ""
    kept_as: str = ""
    summary: ClassVar[bool] = False

    @property
    def words(self) -> bool:
        """Whether it has to be known what the user's question is."""
        return False

    @property
    def cls(self) -> bool:
        """Whether it depends on the tower's CLS token, where there is one."""
        return self.summary

    @property
    def asks(self) -> bool:
        """Whether it depends on the question."""
        return False

    @abstractmethod
    def read(self, source: Source) -> T_co:
        """The value."""


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
