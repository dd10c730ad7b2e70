"""Fixed: replay a selection. Oracles, timing, pictures and ground-truth choices use it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from prunus.errors import PrunusError, PrunusTypeError, shown
from prunus.grid import AnyGrid, Grid, Tiles, tile_order
from prunus.method import Cut, Edit, Method, Selection, View
from prunus.method.fields import fit
from prunus.method.signals import Signal, Summary
from prunus.results.trace import TraceEntry


@dataclass(frozen=True)
class Fixed(Method):
    """Keep exactly the given original token indices at one place.

    ``indices`` is ``[sample][image][token]``; a flat list holds for every image of every sample;
    None keeps everything. With ``pairs`` it acts inside the vision tower instead, and merges what
    they name: for each kind ("image", "video") and each image of that kind its grid and its steps
    ``(block, sources, destinations)``, original indices. With ``attention`` or ``forgotten`` it
    edits attention or caches, and keeps all tokens. ``mixes`` and ``orders`` are as a trace has
    them (:attr:`TraceEntry.mix`, :attr:`TraceEntry.order`). :meth:`replay` turns a trace into the
    list of methods that repeats it.

    Raises:
        PrunusError: indices that are negative, repeated, out of the grid, already gone, or of
            another number of samples or images than the prompt; raised before anything changes.
    """

    name = "fixed"
    paper = "tool of prunus"
    summary = "exactly the given tokens (replay)"
    either = ("indices", "pairs", "attention", "forgotten")

    indices: Any = field(
        default=None, metadata={"help": "[sample][image][token], or one flat list"}
    )
    layer: int | None = field(
        default=1, metadata={"help": "decoder layer at whose input tokens go; none: before the LLM"}
    )
    trim_cache: bool = field(default=False, metadata={"help": "trim earlier layers' cache as well"})
    pairs: Any = field(
        default=None, metadata={"help": "in the tower: {kind: [(grid, [(block, from, into)])]}"}
    )
    by_size: bool = field(default=True, metadata={"help": "how `pairs` merge: see evoprune"})
    proportional: bool = field(default=False, metadata={"help": "with `pairs`: see evoprune"})
    attention: Any = field(default=None, metadata={"help": "{layer: Edit}, from a trace"})
    forgotten: tuple[int, ...] = field(
        default=(), metadata={"help": "layers whose cache loses all visual tokens"}
    )
    mixes: Any = field(
        default=None, metadata={"help": "with nested indices: what new tokens are made of"}
    )
    orders: Any = field(
        default=None, metadata={"help": "with nested indices: in which order they are read"}
    )
    space: Literal["model", "tower"] = field(
        default="model", metadata={"help": "where `mixes` mix: model | tower"}
    )
    compact: bool = field(default=False, metadata={"help": "close positions up at this layer"})

    def __post_init__(self) -> None:
        if self.attention is not None:
            _check_edits(self.attention)
        if self.pairs is not None:
            _check_pairs(self.pairs)
        _check_made(self.mixes, self.orders, self.indices)
        if self.indices is None:
            return
        nested = _rows(self.indices)
        if not len(nested):
            raise PrunusError("indices must be a non-empty list of token indices, flat or nested")
        if isinstance(nested[0], (int, np.integer)):
            object.__setattr__(self, "indices", _checked(nested))
            return
        samples = [_rows(sample) for sample in nested]
        object.__setattr__(
            self, "indices", tuple(tuple(_checked(image) for image in one) for one in samples)
        )

    @staticmethod
    def replay(trace: Sequence[TraceEntry]) -> list[Fixed]:
        """The methods that repeat a trace: one per selection, at the same places."""
        return [_replayed(entry) for entry in trace]

    @property
    def in_tower(self) -> tuple[Signal[Any], ...] | None:
        """As of :class:`~prunus.method.capabilities.MergesInTower`."""
        return None if self.pairs is None else ()

    def merges(self, blocks: int, original: int, count: int | None) -> Sequence[int]:
        """As of :class:`~prunus.method.capabilities.MergesInTower`."""
        counts = [0] * blocks
        for grid, steps in itertools.chain.from_iterable((self.pairs or {}).values()):
            if grid.size == grid.pieces * original:
                for block, sources, _ in steps:
                    counts[block] = len(sources) // grid.pieces
                return counts
        return counts

    def repeated(self, blocks: int, original: int, kind: str | None, image: int) -> Sequence[int]:
        """As of :class:`~prunus.method.capabilities.RepeatsMerges`."""
        grid, steps = self._merged(kind, image)
        if grid.size != grid.pieces * original:
            raise PrunusError(
                f"Fixed holds merges of {grid.size // grid.pieces} tokens of each frame of input "
                f"{image}, and the tower runs on {original}"
            )
        counts = [0] * blocks
        for block, sources, _ in steps:
            counts[block] = len(sources) // grid.pieces
        return counts

    def _merged(self, kind: str | None, image: int) -> tuple[AnyGrid, Any]:
        """Grid and steps of an image of a call for ``kind``."""
        own = self.pairs.get(kind, []) if kind else next(iter(self.pairs.values()))
        if image >= len(own):
            raise PrunusError(
                f"Fixed holds merges of {len(own)} inputs of kind {kind}, the tower runs on more"
            )
        found: tuple[AnyGrid, Any] = own[image]
        return found

    def merge(self, view: View) -> Selection:
        """As of :class:`~prunus.method.capabilities.MergesInTower`."""
        found: list[tuple[Tensor, Tensor]] = []
        for (image, frame), present in zip(view.owners, view.present, strict=True):
            grid, merged = self._merged(view.kind, image)
            steps = {block: pair for block, *pair in merged}
            places = torch.tensor(tile_order(grid)).argsort()  # as the tower has them
            gone, into = (places[tokens].to(present.device) for tokens in steps[view.block])
            here = gone // view.grid.size == frame
            gone, into = (tokens[here] - frame * view.grid.size for tokens in (gone, into))
            found.append((torch.searchsorted(present, gone), torch.searchsorted(present, into)))
        source, destination = (torch.stack(tokens) for tokens in zip(*found, strict=True))
        return Selection.merge(view, source, destination, self.by_size)

    def edits(self, depth: int) -> Mapping[int, Edit]:
        """As of :class:`~prunus.method.capabilities.EditsAttention`."""
        return self.attention or {}

    def forgets(self, depth: int) -> Sequence[int]:
        """As of :class:`~prunus.method.capabilities.EditsAttention`."""
        return self.forgotten

    def cuts(self, depth: int) -> Sequence[Cut]:
        if self.pairs is not None or self.attention or self.forgotten:
            return []
        in_tower_space = self.mixes is not None and self.space == "tower"
        sees: tuple[Signal[Any], ...] = (Summary(),) if in_tower_space else ()
        return [Cut(self.layer, sees, self.trim_cache, self.space, compact=self.compact)]

    def neutral(self) -> Fixed:
        return Fixed(None, self.layer, self.trim_cache)

    def select(self, stage: int, view: View) -> Selection:
        rows = range(len(view.owners))
        kept = self._kept(view)
        if self.orders is None and self.mixes is None:
            return Selection(kept)
        order = None if self.orders is None else [self._read(view, row) for row in rows]
        mix = None
        if self.mixes is not None:
            mix = [self._mixed(view, row, own) for row, own in zip(rows, kept, strict=True)]
        return Selection(kept, order=order, mix=mix)

    def _read(self, view: View, row: int) -> Tensor:
        sample, image = view.owners[row]
        order = self.orders[sample][image].to(view.present.device)
        return torch.searchsorted(view.present[row], order)

    def _mixed(self, view: View, row: int, kept: Tensor) -> Tensor:
        """Float32 ``[k, n + 1]``, the last column for the tower's CLS feature."""
        sample, image = view.owners[row]
        present = view.present[row]
        into, of, weight = (part.to(present.device) for part in self.mixes[sample][image])
        ahead = torch.searchsorted(present[kept], into)
        whole = of == view.grid.size
        column = torch.searchsorted(present, of.clamp(max=view.grid.size - 1))
        column = torch.where(whole, present.shape[0], column)
        mix = weight.new_zeros(len(kept), present.shape[0] + 1)
        same = mix.new_ones(len(kept)).scatter(0, ahead, 0.0)
        mix[torch.arange(len(kept), device=present.device), kept] = same  # what stayed as it was
        found: Tensor = mix.index_put((ahead, column), weight, accumulate=True)
        return found

    def _kept(self, view: View) -> list[Tensor]:
        """Int64, for each image, where its tokens are among those present."""
        present = view.present
        if self.indices is None:
            every = torch.arange(present.shape[1], device=present.device)
            return [every] * len(present)
        wanted = [self._wanted(view, *owner) for owner in view.owners]
        # To the device and back once for all images.
        told = torch.tensor([token for own in wanted for token in own], dtype=torch.long)
        parts = told.to(present.device).split([len(own) for own in wanted])
        there = [torch.isin(own, row) for own, row in zip(parts, present, strict=True)]
        if not bool(torch.cat(there).all()):
            sample, image, chosen, found = next(
                (*owner, own, here)
                for owner, own, here in zip(view.owners, parts, there, strict=True)
                if not bool(here.all())
            )
            raise PrunusError(
                f"Fixed wants tokens {chosen[~found].tolist()[:8]} of sample {sample}, "
                f"image {image}, which are gone or outside its grid of {view.grid.size}"
            )
        return [torch.searchsorted(row, own) for own, row in zip(parts, present, strict=True)]

    def _wanted(self, view: View, sample: int, image: int) -> Sequence[int]:
        """The tokens of one image, as they were given."""
        wanted: Any = self.indices
        if not isinstance(wanted[0], tuple):
            return wanted  # type: ignore[no-any-return]
        if len(wanted) != view.samples or image >= len(wanted[sample]):
            raise PrunusError(
                f"Fixed holds indices for {len(wanted)} samples"
                f" ({[len(one) for one in wanted]} images), but the prompt has {view.samples} "
                f"samples and an image {image} in sample {sample}"
            )
        return wanted[sample][image]  # type: ignore[no-any-return]


def _replayed(entry: TraceEntry) -> Fixed:
    if entry.place == "attention":
        return Fixed(attention=entry.edits, forgotten=tuple(entry.forgets))
    if entry.steps is None:
        return Fixed(
            entry.kept,
            entry.layer,
            entry.trim_cache,
            mixes=entry.mix,
            orders=entry.order,
            space=entry.space,
            compact=entry.compact,
        )
    return Fixed(pairs=_pairs(entry), by_size=entry.by_size, proportional=entry.proportional)


def _pairs(entry: TraceEntry) -> dict[str, list[tuple[AnyGrid, Any]]]:
    """By kind, in the order in which the tower is given them: grid and steps of each image."""
    found: dict[str, list[tuple[AnyGrid, Any]]] = {}
    for kinds, grids, steps in zip(entry.kind, entry.grid, entry.steps or [], strict=True):
        for kind, grid, own in zip(kinds, grids, steps, strict=True):
            found.setdefault(kind, []).append((grid, own))
    return found


def _rows(value: Any) -> Sequence[Any]:
    """``value`` as a list, or PrunusError."""
    try:
        rows: Sequence[Any] = fit("indices", value, tuple[Any, ...])
    except PrunusError as error:
        raise PrunusError(
            f"indices must be a non-empty list of ints, or one such list for each image of each "
            f"sample, got {shown(value)}"
        ) from error
    return rows


def _check_edits(edits: Any) -> None:
    if not isinstance(edits, Mapping) or not all(
        type(layer) is int and isinstance(edit, Edit) for layer, edit in edits.items()
    ):
        raise PrunusTypeError(
            f"attention={shown(edits)}: give edits by layer, as a trace has them ({{0: Edit()}})"
        )


def _check_pairs(pairs: Any) -> None:
    try:
        fits = isinstance(pairs, Mapping) and all(
            isinstance(grid, Grid | Tiles)
            and type(block) is int
            and isinstance(gone, Tensor)
            and isinstance(into, Tensor)
            for own in pairs.values()
            for grid, steps in own
            for block, gone, into in steps
        )
    except (AttributeError, TypeError, ValueError):  # of another shape than that
        fits = False
    if not fits:
        raise PrunusTypeError(
            f"pairs={shown(pairs)}: give merges as a trace has them "
            "({kind: [(grid, [(block, from, into)])]})"
        )


def _check_made(mixes: Any, orders: Any, indices: Any) -> None:
    """Raise PrunusTypeError for mixes or orders that are not as a trace has them."""
    for name, given, parts in (("mixes", mixes, 3), ("orders", orders, 1)):
        if given is None:
            continue
        try:
            fits = len(given) == len(indices) and all(
                len(own) == len(images)
                and all(_are_tensors(one if parts > 1 else [one], parts) for one in own)
                for own, images in zip(given, indices, strict=True)
            )
        except (TypeError, ValueError, LookupError, OverflowError):  # of another shape
            fits = False
        if not fits:
            raise PrunusTypeError(
                f"{name}={shown(given)}: give them as a trace has them, beside nested indices "
                "([sample][image])"
            )


def _are_tensors(values: Any, count: int) -> bool:
    return len(values) == count and all(isinstance(one, Tensor) for one in values)


def _checked(indices: Any) -> tuple[int, ...]:
    """Ascending unique non-negative ints, or PrunusError; an empty list removes the whole image."""
    try:
        values = fit("indices", indices, tuple[int, ...])
    except PrunusError as error:
        raise PrunusError(
            f"token indices must be a list of ints, flat or one list for each image of each sample:"
            f" {error}"
        ) from error
    if not values:
        return ()
    if values[0] < 0 or any(b <= a for a, b in itertools.pairwise(values)):
        raise PrunusError("token indices must be non-negative and strictly ascending")
    return tuple(values)
