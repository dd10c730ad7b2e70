"""The sizes that decide what a model costs: what its adapter says of tower and projector, and what
is read of its language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prunus.grid import Grid


@dataclass(frozen=True)
class MixerShape:
    """How the tokens of one decoder layer see each other, where that is not plain attention with as
    many channels in all layers: ``token`` multiply-accumulates for each of them (projections),
    ``pair`` for each of a query and a key.

    Linear attention has no pairs: it takes ``chunk`` tokens at a time, the last of them filled up,
    for ``whole`` multiply-accumulates. Of a triangular system, which is solved in each chunk,
    nothing is counted: that is no product of matrices.
    """

    token: int
    pair: int = 0
    chunk: int = 1
    whole: int = 0

    def macs(self, tokens: int) -> int:
        """Multiply-accumulates of ``tokens`` tokens of one sample."""
        chunks = -(-tokens // self.chunk)
        return tokens * self.token + tokens**2 * self.pair + chunks * self.whole


@dataclass(frozen=True)
class DecoderShape:
    """The language model: ``layers`` decoder layers of ``width`` channels.

    ``heads`` query heads and ``kv_heads`` key/value heads have ``head_dim`` channels each;
    ``ffn`` are the inner channels of a feed-forward block; in a mixture of experts those of each
    layer by itself, of all experts that a token is sent to, and ``routers`` the experts that it is
    compared with. ``ffn_matrices`` is 3 for a gated block (SwiGLU) and 2 for a plain one.
    ``mixers`` are there, one for each layer, where its attention is not what heads say. ``along``
    are the multiply-accumulates for each token in each layer that belong to neither (inputs by
    layer), and ``entering`` those in front of the first one.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int | tuple[int, ...]
    ffn_matrices: int = 3
    routers: tuple[int, ...] = ()
    mixers: tuple[MixerShape, ...] = ()
    along: int = 0
    entering: int = 0

    def mixer(self, layer: int) -> MixerShape:
        """How the tokens of ``layer`` see each other."""
        if self.mixers:
            return self.mixers[layer]
        return plain_mixer(self.width, self.heads, self.kv_heads, self.head_dim)

    def inside(self, layer: int) -> int:
        """Inner channels of the feed-forward block of ``layer``."""
        return self.ffn if isinstance(self.ffn, int) else self.ffn[layer]


def plain_mixer(width: int, heads: int, kv_heads: int, head_dim: int) -> MixerShape:
    """Attention of ``heads`` queries, over keys and values of ``kv_heads``."""
    inner = heads * head_dim
    return MixerShape(2 * width * (inner + kv_heads * head_dim), 2 * inner)


@dataclass(frozen=True)
class CacheShape:
    """What is in the key/value cache of each of ``layers`` layers: of each token ``held`` numbers,
    keys and values together (0 where a layer reads the keys of another); and whatever the number of
    tokens ``states`` numbers as precise as keys are, and ``floats`` in float32 (linear
    attention)."""

    held: tuple[int, ...]
    states: tuple[int, ...] = ()
    floats: tuple[int, ...] = ()

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return len(self.held)


def plain_cache(layers: int, kv_heads: int, head_dim: int) -> CacheShape:
    """``kv_heads`` keys and as many values in every layer."""
    return CacheShape((2 * kv_heads * head_dim,) * layers)


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
    merged away before. ``early``: others that read what earlier blocks leave, (block, ``macs``).
    ``beside``: what else is done in a pass with some grid, where that is not by row (pooling)."""

    macs: int
    rows: int | Callable[[Grid], int] | None = None
    whole: bool = False
    early: tuple[tuple[int, int], ...] = ()
    beside: Callable[[Grid], int] | None = None


@dataclass(frozen=True)
class Pass(Grid):
    """One pass of a tower over ``size`` patches, padding and overlaps included, of which ``made``
    visual tokens with this ``cell`` are made; where patches are no squares of the tokens' grid."""

    made: int = 0


TowerShape = EncoderShape | WindowedShape


@dataclass(frozen=True)
class ModelShape:
    """Everything that :func:`prunus.cost.flops.prefill_flops` needs to know of a model."""

    decoder: DecoderShape
    encoder: TowerShape
    projector: ProjectorShape
