"""What a pruning method is shown: visual tokens of some images, and the words around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from prunus.grid import AnyGrid


@dataclass(frozen=True)
class Influence:
    """How the attention output of the last prompt token (all heads, before the output projection)
    changes when the weight of one visual token is set to zero.

    Attributes:
        cosine: float32 ``[G, n]``, cosine of the output without that token and the whole output.
        change: float32 ``[G, n]``, L2 norm of the difference.
        output: float32 ``[G]``, L2 norm of the whole output.
    """

    cosine: Tensor
    change: Tensor
    output: Tensor


@dataclass(frozen=True)
class Words:
    """The prompt that each of ``G`` images stands in.

    Attributes:
        ids: int64 ``[G, L]``, token ids.
        prompt: bool ``[G, L]``, tokens up to the last one of the prompt: no padding, no answer.
        visual: bool ``[G, L]``, placeholders of visual tokens.
        embed: the model's word embeddings: int64 ``[...]`` to ``[..., D]``.
    """

    ids: Tensor
    prompt: Tensor
    visual: Tensor
    embed: Callable[[Tensor], Tensor]


class Facts(Protocol):
    """What a learned method may know about a model, to tell whether it fits."""

    @property
    def feature_width(self) -> int:
        """Channels of :attr:`View.features`."""

    @property
    def text_width(self) -> int:
        """Channels of a word embedding."""

    def fingerprint(self) -> Tensor:
        """Float32 numbers that differ from model to model."""


@dataclass(frozen=True)
class View:
    """What a method sees of a group of ``G`` images that share one grid and one token count ``n``.

    Attributes:
        grid: where the original ``N = grid.size`` tokens lie.
        present: int64 ``[G, n]``, ascending original indices of the tokens that are still there.
        owners: for each of the G images, ``(sample, image within the sample)``.
        samples: number of samples in the batch (before beams).
        depth: number of decoder layers.
        memo: what the method wants to remember of this prompt from stage to stage; one dictionary
            for all views of the prompt, empty at first.
    """

    grid: AnyGrid
    present: Tensor
    owners: Sequence[tuple[int, int]]
    samples: int
    depth: int
    memo: dict[Any, Any]
    _states: Callable[[], Tensor]
    _snapshot: Callable[[int], Tensor]
    _attention: Callable[[int], Tensor]
    _influence: Callable[[int], Influence]
    _value_norm: Callable[[int], Tensor]
    _features: Callable[[], Tensor]
    _words: Callable[[], Words]

    @property
    def intact(self) -> bool:
        """Whether every original token of the grid is still there."""
        return self.present.shape[1] == self.grid.size

    @property
    def states(self) -> Tensor:
        """Hidden states ``[G, n, D]`` entering this place, in the model's dtype."""
        return self._states()

    @property
    def features(self) -> Tensor:
        """Visual features ``[G, n, D]`` as a learned selector reads them: where the family has one
        row per token before the projector, what enters it; else the projected tokens. For methods
        that set :attr:`Method.reads_features`, before the language model."""
        return self._features()

    def words(self) -> Words:
        """The text around these images."""
        return self._words()

    def snapshot(self, layer: int) -> Tensor:
        """States ``[G, n, D]`` of the same tokens as they entered the earlier ``layer``."""
        return self._snapshot(layer)

    def attention(self, layer: int) -> Tensor:
        """Float32 ``[G, n]``: post-softmax attention of the last prompt token in decoder layer
        ``layer`` to each of these tokens, averaged over heads. One query row is computed beside
        the model's own kernel; the model never materialises an attention map for it."""
        return self._attention(layer)

    def influence(self, layer: int) -> Influence:
        """What each of these tokens contributes to the last prompt token's attention output in
        decoder layer ``layer``, computed in fp32 from that one query row (VisiPruner, arXiv
        2510.17205, Eqs. 5-7)."""
        return self._influence(layer)

    def value_norm(self, layer: int) -> Tensor:
        """Float32 ``[G, n]``: L1 norm of each token's value in decoder ``layer``, summed over all
        query heads (VisiPruner's measure of attention sinks, appendix E)."""
        return self._value_norm(layer)


def by_sample(views: Sequence[View]) -> dict[int, dict[int, tuple[int, int]]]:
    """For each sample and each of its images, which view and which row of it. Of beams, which
    choose alike, the first row speaks."""
    found: dict[int, dict[int, tuple[int, int]]] = {}
    for number, view in enumerate(views):
        for row, (sample, image) in enumerate(view.owners):
            found.setdefault(sample, {}).setdefault(image, (number, row))
    return found
