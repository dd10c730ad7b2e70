"""The sizes that decide what a model costs: what its adapter says of tower and projector, and what
is read of its language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prunus.grid import Grid


@dataclass(frozen=True)
class DecoderShape:
    """The language model: ``layers`` decoder layers of ``width`` channels.

    ``heads`` query heads and ``kv_heads`` key/value heads have ``head_dim`` channels each;
    ``ffn`` are the inner channels of a feed-forward block; in a mixture of experts those of each
    layer by itself, of all experts that a token is sent to, and ``routers`` the experts that it is
    compared with. ``ffn_matrices`` is 3 for a gated block (SwiGLU) and 2 for a plain one.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int | tuple[int, ...]
    ffn_matrices: int = 3
    routers: tuple[int, ...] = ()

    def inside(self, layer: int) -> int:
        """Inner channels of the feed-forward block of ``layer``."""
        return self.ffn if isinstance(self.ffn, int) else self.ffn[layer]


@dataclass(frozen=True)
class CacheShape:
    """What a token takes in the key/value cache of each of ``layers`` layers: ``kv_heads`` keys and
    as many values of ``head_dim`` channels. Where layers differ, ``widths`` are the channels of all
    keys of a token in each: 0 where a layer reads the keys of another."""

    layers: int
    kv_heads: int
    head_dim: int
    widths: tuple[int, ...] = ()


@dataclass(frozen=True)
class EncoderShape:
    """The vision tower, with the layers that the unmodified model *executes*.

    LLaVA reads ``hidden_states[-2]``, but transformers runs the last block all the same, so it
    counts. ``patches`` and ``extra`` (1 for a CLS token) make up the sequence of one image;
    ``patch_inputs`` is channels x patch height x patch width. ``pooling_head`` says whether an
    attention pooling head runs behind the blocks (SigLIP; its result is not used by LLaVA).
    ``merge`` are the patches along a side of a visual token, where these are joined behind it.
    """

    layers: int
    width: int
    ffn: int
    patches: int
    extra: int
    patch_inputs: int
    pooling_head: bool = False
    merge: int = 1

    @property
    def tokens(self) -> int:
        """Sequence length of one image in the tower."""
        return self.patches + self.extra


@dataclass(frozen=True)
class WindowedShape:
    """A tower over images of any size, whose blocks see whole frames or windows only (Qwen-VL).

    A frame of ``rows x cols`` visual tokens has ``merge ** 2`` patches for each; ``window`` is the
    side of a window in visual tokens. The blocks in ``full`` see whole frames instead, and never
    more than one: frames do not meet in the tower. ``ffn_matrices`` as in :class:`DecoderShape`.
    ``each`` says how many patches a visual token of a grid has, where ``merge`` does not.
    """

    layers: int
    width: int
    ffn: int
    patch_inputs: int
    merge: int
    window: int
    full: frozenset[int]
    ffn_matrices: int = 3
    each: Callable[[Grid], int] | None = None

    def patches(self, grid: Grid) -> int:
        """Patches of each visual token of ``grid``."""
        return self.merge**2 if self.each is None else self.each(grid)


@dataclass(frozen=True)
class ProjectorShape:
    """What turns tower features into visual tokens: ``macs`` multiply-accumulates for each of its
    ``rows`` in one pass of the tower, or for what they are in a pass with some grid; None where
    these are the visual tokens of its grid. ``whole``: it works on all of them, even if tokens were
    merged away before. ``early``: others that read what earlier blocks leave, (block, ``macs``)."""

    macs: int
    rows: int | Callable[[Grid], int] | None = None
    whole: bool = False
    early: tuple[tuple[int, int], ...] = ()


TowerShape = EncoderShape | WindowedShape


@dataclass(frozen=True)
class ModelShape:
    """Everything that :func:`prunus.cost.flops.prefill_flops` needs to know of a model."""

    decoder: DecoderShape
    encoder: TowerShape
    projector: ProjectorShape
