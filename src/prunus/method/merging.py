"""What a method that merges inside the vision tower is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from prunus.grid import Grid


@dataclass(frozen=True)
class TowerView:
    """``G`` images (or frames of a video) of equal size between attention and MLP of one block.

    A token is what becomes one visual token of the language model: a patch, or the 2x2 patches
    that the family's projector joins. A CLS token is not among them: it is never merged.

    Attributes:
        grid: where the original ``N = grid.size`` tokens of one frame lie (``grid.frames`` is 1).
        present: int64 ``[G, T]``, ascending original indices of the tokens that are still there.
        sizes: float32 ``[G, T]``, how many original tokens each of them stands for.
        members: for each of the G, ``(image in this call of the tower, frame of the image)``.
        kind: what the call is for, "image" or "video"; None where the model's own forward did not
            make it.
        block: 0-based number of the block; ``blocks`` is how many reach the projector.
        count: how many tokens are to go now, of each of the G.
        carry: what the method gave as :attr:`Merging.carry` at the last merging block, for the
            tokens present now; None at the first.
    """

    grid: Grid
    present: Tensor
    sizes: Tensor
    members: Sequence[tuple[int, int]]
    kind: str | None
    block: int
    blocks: int
    count: int
    carry: Tensor | None
    _states: Callable[[], Tensor]
    _keys: Callable[[], Tensor]
    _received: Callable[[], Tensor]

    @property
    def states(self) -> Tensor:
        """``[G, T, D]`` hidden states behind the attention's residual sum, in the model's dtype."""
        return self._states()

    @property
    def keys(self) -> Tensor:
        """``[G, T, d]`` attention keys of this block, mean over heads, before rotary embedding."""
        return self._keys()

    @property
    def received(self) -> Tensor:
        """Float32 ``[G, T]``: attention that each token receives in this block, the mean over
        heads and queries (CLS among them) of the post-softmax map. Computed when asked for, beside
        the model's own kernel and in pieces, so that no map is held."""
        return self._received()


@dataclass(frozen=True)
class Merging:
    """Which tokens go into which others.

    Attributes:
        source: int64 ``[G, r]``, indices into the ``T`` present tokens; they go.
        destination: int64 ``[G, r]``, indices of the tokens they go into, none of them a source;
            one may take several.
        by_size: the merged token is the mean of the *original* tokens it stands for (weights are
            :attr:`TowerView.sizes`); else the plain mean of the tokens that meet.
        scores: float32 ``[G, T]`` importance for the trace (that of the first merging block is
            kept), or None.
        carry: ``[G, T]`` or ``[G, T, ...]``, given back at the next merging block for those of the
            tokens that are left; the method's memory between blocks.
        macs: multiply-accumulates that the choice took per frame, apart from what the view
            computed; for the FLOPs in the report.
    """

    source: Tensor
    destination: Tensor
    by_size: bool = True
    scores: Tensor | None = None
    carry: Tensor | None = None
    macs: float = 0.0
