"""What the encoder stage must know about a family's vision tower, and nothing else may know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import PrunusError
from prunus.grid import Grid

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a module."""


@dataclass(frozen=True)
class Frames:
    """Images, or frames of videos, of one tower call that have equally many tokens.

    Attributes:
        grid: that of one frame.
        members: ``(image of this call, frame of that image)`` of each of the G.
    """

    grid: Grid
    members: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Arrangement:
    """Where the tokens of a tower call lie in a tensor, its leading dimensions flattened.

    Attributes:
        length: its rows when every token is there, with those that are no token (CLS).
        slots: for each :class:`Frames`, int64 ``[G, N, u]``: the rows of the ``u`` patches of
            original token n. Rows of no token are never removed; what remains keeps its order.
    """

    length: int
    slots: Sequence[Tensor]

    def on(self, device: torch.device) -> Arrangement:
        """The same on another device, so that no step of a merge waits for a copy."""
        return Arrangement(self.length, [slots.to(device) for slots in self.slots])


class Tower(ABC):
    """Adapter of a vision tower whose blocks are ``x + attention(norm(x))``, then
    ``x + mlp(norm(x))``, for methods that merge between the two.

    Everything here speaks of tensors with their leading dimensions flattened to rows, so that
    batched ``[images, tokens, D]`` and packed ``[tokens, D]`` towers look alike.
    """

    takes_bias: ClassVar[bool] = False
    """Whether :meth:`enter` can add a bias to the attention logits of every key."""

    takes_lengths: ClassVar[bool] = False
    """Whether images of one call may have unequally many tokens left."""

    has_summary: bool = False
    """Whether there is a CLS token."""

    whole: bool = False
    """Whether the model goes by the size of each image behind the last block, so that features go
    on at full length, with zeros where tokens are gone, through the projector as well."""

    blocks: Sequence[nn.Module]
    """All blocks that run."""

    read: int
    """How many of them reach the projector; what later ones do is thrown away by the model."""

    def number(self, block: int | float | str | None) -> int:
        """Which one a signal means (:data:`prunus.method.signals.Block`)."""
        if block is None:
            return self.read - 1
        if isinstance(block, str):  # "next"
            return min(self.read, len(self.blocks) - 1)
        return int(block * self.read + 1e-6) if isinstance(block, float) else block

    @abstractmethod
    def norm(self, number: int) -> nn.Module:
        """The module in front of the MLP of block ``number``, given what the attention left."""

    @abstractmethod
    def mlp(self, number: int) -> nn.Module:
        """The MLP of block ``number``, whose output is added to the residual."""

    @property
    def exit(self) -> nn.Module | None:
        """The first module behind the last block that runs, where that is not the projector: what
        enters it is what :meth:`features` is about."""
        return None

    @property
    def early(self) -> Mapping[int, nn.Module]:
        """Modules that read what earlier blocks leave, by block, arranged as :meth:`inside`, and
        give one row for each token, as the projector does (:meth:`projected`)."""
        return {}

    @abstractmethod
    def taps(self, number: int) -> Mapping[str, nn.Module]:
        """Modules of block ``number`` whose outputs :meth:`keys` and :meth:`received` read."""

    @abstractmethod
    def grids(self, call: Mapping[str, Any]) -> list[Grid]:
        """Those of the images (or videos) of one call of the tower, from its own arguments."""

    @abstractmethod
    def frames(self, grids: Sequence[Grid]) -> list[Frames]:
        """The images of one call of the tower, those of equal size together."""

    @abstractmethod
    def inside(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        """Rows of the hidden states between blocks; ``call`` are the tower's own arguments."""

    @abstractmethod
    def features(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        """Rows of what enters the projector, or :attr:`exit`."""

    @abstractmethod
    def projected(self, frames: Sequence[Frames], call: dict[str, Any]) -> Arrangement:
        """Rows of what leaves the projector: one per token (``u`` is 1)."""

    def enter(self, number: int, call: Call, rows: Tensor | None, bias: Tensor | None) -> Call:
        """Arguments of block ``number`` (behind the hidden states) for the rows that are left.

        Args:
            rows: int64, ascending: which of the original rows; None if nothing is gone yet.
            bias: float32, one per row, to be added to the logits of that key; only if
                :attr:`takes_bias`.
        """
        return call

    @abstractmethod
    def keys(
        self,
        number: int,
        seen: Mapping[str, Tensor],
        call: Call,
        rotary: bool = False,
        joined: bool = False,
    ) -> Tensor:
        """``[rows, d]``: keys of block ``number``, mean over heads, or (``joined``)
        ``[rows, H * d]``, all heads side by side; before rotary embedding or behind it; ``call`` as
        the block was given it."""

    def summary(self, states: Tensor) -> Tensor:
        """``[images, 1, D]``: the CLS token in the states between blocks.

        Raises:
            PrunusError: there is none.
        """
        raise PrunusError(f"{type(self).__name__} has no CLS token")

    def summed(
        self, number: int, seen: Mapping[str, Tensor], call: Call, bias: Tensor | None
    ) -> tuple[Tensor, float]:
        """Float32 ``[rows]``: attention of the CLS token's row, mean over heads, all keys in the
        softmax; where there is none, :meth:`received`. And the multiply-accumulates this took."""
        return self.received(number, seen, call, bias)

    def joined(
        self, number: int, seen: Mapping[str, Tensor], call: Call, bias: Tensor | None
    ) -> tuple[Tensor, float]:
        """As :meth:`summed`, of one softmax over the products of all heads' queries and keys side
        by side, before rotary embedding; without a CLS token :meth:`received`."""
        return self.received(number, seen, call, bias)

    @abstractmethod
    def received(
        self, number: int, seen: Mapping[str, Tensor], call: Call, bias: Tensor | None
    ) -> tuple[Tensor, float]:
        """Float32 ``[rows]``: attention received, mean over heads, in one measure over queries for
        all rows of an image; and the multiply-accumulates this took. ``call`` and ``bias`` as the
        block was given them."""


def read_block(layer: int | list[int], depth: int) -> int:
    """How many of ``depth`` blocks reach the projector, where ``layer`` is the model's
    ``vision_feature_layer``.

    Raises:
        PrunusError: features of several blocks do.
    """
    if not isinstance(layer, int):
        raise PrunusError(
            f"vision_feature_layer={layer!r} joins features of several blocks, which have "
            "different numbers of tokens when a method merges inside the tower"
        )
    return layer if layer >= 0 else depth + 1 + layer  # hidden_states[k] is what block k - 1 gives
