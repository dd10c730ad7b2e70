"""What a signal is, and what the engine gives to read it from: a decoder layer, a block of the
vision tower, the prompt. Shapes are those of :mod:`prunus.method.signals`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

from torch import Tensor

from prunus.method.words import Words
from prunus.signals.attention import ByHead
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


class Passed(NamedTuple):
    """States ``[G, n, D]`` of visual tokens as they ``enter`` a decoder layer, and as they
    ``leave`` it, in the model's dtype."""

    enter: Tensor
    leave: Tensor


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
    """Where signals are read from: what the engine kept for one group of images; ``macs`` are the
    multiply-accumulates that reading took beyond the model's own work."""

    macs: float

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

    def ahead(self) -> Passed:
        """What the first decoder layer makes of each image's visual tokens alone."""

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
        ahead: whether the first decoder layer has to run for it before the language model does.
        asks: whether its value depends on the question (on anything behind the image).
    """

    layer: int | None = None
    block: Block = None
    keeps: ClassVar[Literal["states", "row", "all"]] = "states"
    tower: ClassVar[Literal["", "features", "block"]] = ""
    kept_as: str = ""
    summary: ClassVar[bool] = False
    ahead: ClassVar[bool] = False

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
