"""What a pruning method is: a dataclass of hyper-parameters and one function that scores tokens.

The engine finds the tokens, runs the model, gathers what survives and keeps caches, masks and
positions right. A method only says where it looks (:meth:`Method.cuts`), how many tokens it keeps
(:meth:`Method.budget`) and which ones it likes (:meth:`Method.score`).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError, PrunusTypeError, shown
from prunus.grid import Grid
from prunus.method.budget import Keep, resolve_keep
from prunus.method.fields import check_fields, check_rest
from prunus.method.merging import Merging, TowerView
from prunus.method.view import Facts, View
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
class Edit:
    """What the attention of one decoder layer loses while the prompt is read (later tokens and
    turns attend as the model does).

    Args:
        text: what text tokens behind the first visual token see of the visual ones: everything
            ("keep"), nothing ("cut"), the second half of them ("half"), or nothing but the
            ``sink``, on which each head puts all its weight on visual tokens ("merge").
        visual: what visual tokens see of visual ones: "keep", or "cut" (not even themselves).
        renormalise: take what is cut out before the softmax, so that the rest sums to one and
            what is cut need not be computed. Otherwise weights are set to zero after the softmax
            and their mass is lost, as in the published analyses.
        sink: index of the visual token, among all of a sample, that "merge" chooses; negative
            counts from the end.
    """

    text: Literal["keep", "cut", "half", "merge"] = "keep"
    visual: Literal["keep", "cut"] = "keep"
    renormalise: bool = False
    sink: int = 0


@dataclass(frozen=True)
class Selection:
    """``kept``: int64 ``[G, k]``, or G ragged tensors, of ascending indices into the ``n`` present
    tokens; ``scores``: float32 ``[G, n]`` or None. ``labels``: for each image what happened, in one
    word, or "" where nothing did; a selection in which nothing happened leaves no trace. ``order``:
    the same indices as ``kept`` in the order in which the language model is to read them; only for
    tokens removed before it. ``macs``: what choosing cost, if :meth:`Method.macs` cannot know."""

    kept: Tensor | Sequence[Tensor]
    scores: Tensor | None = None
    labels: Sequence[str] | None = None
    order: Sequence[Tensor] | None = None
    macs: float | None = None

    @classmethod
    def everything(cls, view: View) -> Selection:
        """Keep all, and leave no trace."""
        groups, count = view.present.shape
        every = torch.arange(count, device=view.present.device).expand(groups, -1)
        return cls(every, labels=[""] * groups)


@dataclass(frozen=True)
class Seen:
    """What one sample's prefill had in it: ``original`` visual tokens and ``text`` tokens, and the
    visual tokens ``per_layer``."""

    original: int
    text: int
    per_layer: Sequence[int]


class Method:
    """Base class. Subclasses are frozen dataclasses that set ``name`` and define :meth:`score`."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    kind: ClassVar[Literal["drop", "merge", "edit"]] = "drop"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if own := cls.__dict__.get("__post_init__"):
            setattr(cls, "__post_init__", _with_checks(own))  # noqa: B010 - not for mypy
        if "name" in cls.__dict__:
            _REGISTRY[cls.name] = cls

    def __post_init__(self) -> None:
        """Fields are checked against their annotations, also where a subclass defines this."""
        check_fields(self)
        check_rest(self)

    def cuts(self, depth: int) -> Sequence[Cut]:
        """The stages of this method on a decoder of ``depth`` layers, in running order."""
        raise PrunusTypeError(f"{type(self).__name__} does not say where it cuts: define cuts()")

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
        raise PrunusTypeError(f"{type(self).__name__} defines neither score() nor select()")

    def select(self, stage: int, view: View) -> Selection:
        """Choose tokens; by default the :meth:`budget` best of :meth:`score`."""
        return self.rank(stage, view, self.score(stage, view))

    def choose(self, stage: int, views: Sequence[View]) -> Sequence[Selection]:
        """Choose for the whole prompt: one selection for each of ``views``, which together hold all
        of its images. By default each is chosen by itself."""
        return [self.select(stage, view) for view in views]

    def rank(self, stage: int, view: View, scores: Tensor) -> Selection:
        """The :meth:`budget` best by ``scores`` ``[G, n]``.

        Raises:
            PrunusError: scores of another shape, or NaN among them.
        """
        count = min(self.budget(stage, view.grid.size), view.present.shape[1])
        scores = scores.float()
        if scores.shape != view.present.shape:
            raise PrunusError(
                f"{self.name}.score returned shape {tuple(scores.shape)}, "
                f"expected {tuple(view.present.shape)} (images, tokens)"
            )
        if bool(torch.isnan(scores).any()):
            raise PrunusError(f"{self.name}.score returned NaN at stage {stage}")
        return Selection(stable_topk(scores, count), scores)

    def macs(self, stage: int, grid: Grid, present: int, width: int) -> float:
        """Multiply-accumulates that scoring one image costs beyond the model's own work."""
        return 0.0

    # -- inside the decoder's attention, and in the cache ---------------------------------------

    def edits(self, depth: int) -> Mapping[int, Edit]:
        """Decoder layers whose attention this method edits while the prompt is read."""
        return {}

    def forgets(self, depth: int) -> Sequence[int]:
        """Decoder layers whose cache loses all visual tokens once the prompt was read."""
        return ()

    @property
    def adaptive(self) -> bool:
        """Whether the method may find nothing to do; the engine then says so."""
        return False

    def published(self, shape: Any, seen: Seen) -> dict[str, float]:
        """Cost figures of one sample as the method's paper defines them, by name; ``shape`` is the
        :class:`~prunus.cost.shapes.DecoderShape` of the model."""
        return {}

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
            PrunusError: the budget cannot be reached; raised before anything runs.
        """
        return [0] * blocks

    def merge(self, view: TowerView) -> Merging:
        """Which ``view.count`` tokens go into which others at this block."""
        raise PrunusTypeError(
            f"{type(self).__name__} acts in the tower but does not define merge()"
        )

    # -- learned -------------------------------------------------------------------------------

    @property
    def reads_features(self) -> bool:
        """Whether it looks at :attr:`View.features`."""
        return False

    def fit(self, model: Facts) -> Method:
        """The method as it is for ``model``; a learned one loads what was learned for it.

        Raises:
            PrunusError: nothing was learned for this model.
        """
        return self

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


def _with_checks(own: Callable[[Any], None]) -> Callable[[Any], None]:
    """``__post_init__`` of a method, which needs to check no types."""

    @functools.wraps(own)
    def post_init(self: Any) -> None:
        check_fields(self, finite=False)
        own(self)
        check_rest(self)

    return post_init


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
        PrunusError: unknown name or parameter (the message lists what exists).
        PrunusTypeError: something that is neither, or parameters beside an instance.
    """
    if isinstance(method, Method):
        if params:
            raise PrunusTypeError(
                f"parameters {sorted(params)} were given beside an instance of "
                f"{type(method).__name__}: set them on the instance"
            )
        return method
    if not isinstance(method, str):
        raise PrunusTypeError(
            f"{shown(method)} is no method: give a name, an instance or a list of instances"
        )
    known = methods()
    if method not in known:
        raise PrunusError(f"unknown method {shown(method)}: choose from {', '.join(known)}")
    fields = {field.name for field in dataclasses.fields(known[method])}  # type: ignore[arg-type]
    if unknown := sorted(set(params) - fields):
        raise PrunusError(
            f"{method} has no parameter {', '.join(unknown)}: it takes {', '.join(sorted(fields))}"
        )
    return known[method](**params)
