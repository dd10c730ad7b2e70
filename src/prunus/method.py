"""What a pruning method is: a dataclass of hyper-parameters and one function that scores tokens.

The engine finds the tokens, runs the model, gathers what survives and keeps caches, masks and
positions right. A method only says where it looks (:meth:`Method.cuts`), how many tokens it keeps
(:meth:`Method.budget`) and which ones it likes (:meth:`Method.score`).
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from prunus.budget import Keep, resolve_keep
from prunus.grid import Grid
from prunus.merging import Merging, TowerView
from prunus.signals.topk import stable_topk

_REGISTRY: dict[str, type[Method]] = {}


@dataclass(frozen=True)
class Cut:
    """One place where a method removes visual tokens.

    Args:
        layer: decoder layer (0-based) at whose *input* the tokens are removed; that layer and all
            later ones run without them. None means before the language model, on the projected
            features.
        snapshots: decoder layers (< ``layer``) whose input states the method wants to compare.
        attention: decoder layers (< ``layer``) of which it wants the last prompt token's attention.
        trim_cache: also remove the tokens from the KV cache of the earlier layers afterwards.
    """

    layer: int | None
    snapshots: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()
    trim_cache: bool = False


@dataclass(frozen=True)
class View:
    """What a method sees of a group of ``G`` images that share one grid and one token count ``n``.

    Attributes:
        grid: where the original ``N = grid.size`` tokens lie.
        present: int64 ``[G, n]``, ascending original indices of the tokens that are still there.
        states: ``[G, n, D]`` hidden states entering this place, in the model's dtype.
        owners: for each of the G images, ``(sample, image within the sample)``.
        samples: number of samples in the batch (before beams).
        depth: number of decoder layers.
    """

    grid: Grid
    present: Tensor
    states: Tensor
    owners: Sequence[tuple[int, int]]
    samples: int
    depth: int
    _snapshot: Callable[[int], Tensor]
    _attention: Callable[[int], Tensor]

    @property
    def intact(self) -> bool:
        """Whether every original token of the grid is still there."""
        return self.present.shape[1] == self.grid.size

    def snapshot(self, layer: int) -> Tensor:
        """States ``[G, n, D]`` of the same tokens as they entered the earlier ``layer``."""
        return self._snapshot(layer)

    def attention(self, layer: int) -> Tensor:
        """Float32 ``[G, n]``: post-softmax attention of the last prompt token in decoder layer
        ``layer`` to each of these tokens, averaged over heads. One query row is computed beside
        the model's own kernel; the model never materialises an attention map for it."""
        return self._attention(layer)


@dataclass(frozen=True)
class Selection:
    """``kept``: int64 ``[G, k]``, or G ragged tensors, of ascending indices into the ``n`` present
    tokens; ``scores``: float32 ``[G, n]`` or None."""

    kept: Tensor | Sequence[Tensor]
    scores: Tensor | None = None


class Method:
    """Base class. Subclasses are frozen dataclasses that set ``name`` and define :meth:`score`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    kind: ClassVar[Literal["drop", "merge", "edit"]] = "drop"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            _REGISTRY[cls.name] = cls

    def cuts(self, depth: int) -> Sequence[Cut]:
        """The stages of this method on a decoder of ``depth`` layers, in running order."""
        raise TypeError(f"{type(self).__name__} does not say where it cuts: define cuts()")

    def budget(self, stage: int, original: int) -> int:
        """Tokens to keep after ``stage`` of an image that had ``original`` of them at first."""
        keep: Keep = getattr(self, "keep")  # noqa: B009 - a field of the subclass
        return resolve_keep(keep, original)

    def nominal(self, original: int) -> float | None:
        """Tokens per image that the user asked for; None where the method finds its own count."""
        keep: Keep | None = getattr(self, "keep", None)
        return None if keep is None else float(resolve_keep(keep, original))

    def asked(self, grid: Grid) -> float | None:
        """Like :meth:`nominal`, of an image whose tokens lie on ``grid``."""
        return self.nominal(grid.size)

    def score(self, stage: int, view: View) -> Tensor:
        """Float32 ``[G, n]``; the largest are kept, ties by lower index."""
        raise TypeError(f"{type(self).__name__} defines neither score() nor select()")

    def select(self, stage: int, view: View) -> Selection:
        """Choose tokens; by default the :meth:`budget` best of :meth:`score`."""
        return self.rank(stage, view, self.score(stage, view))

    def rank(self, stage: int, view: View, scores: Tensor) -> Selection:
        """The :meth:`budget` best by ``scores`` ``[G, n]``.

        Raises:
            ValueError: scores of another shape, or NaN among them.
        """
        count = min(self.budget(stage, view.grid.size), view.present.shape[1])
        scores = scores.float()
        if scores.shape != view.present.shape:
            raise ValueError(
                f"{self.name}.score returned shape {tuple(scores.shape)}, "
                f"expected {tuple(view.present.shape)} (images, tokens)"
            )
        if bool(torch.isnan(scores).any()):
            raise ValueError(f"{self.name}.score returned NaN at stage {stage}")
        return Selection(stable_topk(scores, count), scores)

    def macs(self, stage: int, grid: Grid, present: int, width: int) -> float:
        """Multiply-accumulates that scoring one image costs beyond the model's own work."""
        return 0.0

    # -- inside the vision tower ---------------------------------------------------------------

    @property
    def acts_in_tower(self) -> bool:
        """Whether :meth:`merge` is to be called at the blocks that :meth:`merges` names."""
        return False

    @property
    def attention_by_size(self) -> bool:
        """Whether the tower's attention is to count a merged token as often as the tokens it stands
        for: the logarithm of its size is added to the logits (ToMe's proportional attention)."""
        return False

    def merges(self, blocks: int, original: int) -> Sequence[int]:
        """Tokens that each of the ``blocks`` tower blocks that reach the projector removes of an
        image (a frame of a video) that has ``original``.

        Raises:
            ValueError: the budget cannot be reached; raised before anything runs.
        """
        return [0] * blocks

    def merge(self, view: TowerView) -> Merging:
        """Which ``view.count`` tokens go into which others at this block."""
        raise TypeError(f"{type(self).__name__} acts in the tower but does not define merge()")

    @property
    def query_dependent(self) -> bool:
        """Whether the selection depends on the last prompt token (and so on the question)."""
        return False

    @property
    def needs_intact_grid(self) -> bool:
        """Whether the first stage must see every original token of the grid."""
        return False

    def neutral(self) -> Method:
        """The same method at the setting that changes nothing (keep everything)."""
        return dataclasses.replace(self, keep=1.0)  # type: ignore[type-var]


def methods() -> dict[str, type[Method]]:
    """All known methods by name. A new file in ``prunus/pruners`` is found by itself; classes
    defined elsewhere are known once their module is imported."""
    package = importlib.import_module("prunus.pruners")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"prunus.pruners.{module.name}")
    return dict(sorted(_REGISTRY.items()))


def make_method(method: Method | str, params: dict[str, Any]) -> Method:
    """Turn a name with parameters, or an instance, into a method.

    Raises:
        ValueError: unknown name or parameter (the message lists what exists).
        TypeError: something that is neither, or parameters beside an instance.
    """
    if isinstance(method, Method):
        if params:
            raise TypeError(
                f"parameters {sorted(params)} were given beside an instance of "
                f"{type(method).__name__}: set them on the instance"
            )
        return method
    if not isinstance(method, str):
        raise TypeError(f"{method!r} is no method: give a name, an instance or a list of instances")
    known = methods()
    if method not in known:
        raise ValueError(f"unknown method {method!r}: choose from {', '.join(known)}")
    fields = {field.name for field in dataclasses.fields(known[method])}  # type: ignore[arg-type]
    if unknown := sorted(set(params) - fields):
        raise ValueError(
            f"{method} has no parameter {', '.join(unknown)}: it takes {', '.join(sorted(fields))}"
        )
    return known[method](**params)
