"""What a pruning method is: a dataclass of hyper-parameters and one function that chooses tokens.

The engine finds the tokens, runs the model, gathers what survives and keeps caches, masks and
positions right. A method only says where it looks (:meth:`Method.cuts`) and which tokens it likes
(:meth:`Method.score`); what else it may be able to do stands in
:mod:`prunus.method.capabilities`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from prunus.errors import PrunusError, PrunusTypeError
from prunus.grid import AnyGrid
from prunus.method.budget import Unit
from prunus.method.fields import check_fields, check_rest
from prunus.method.places import Cut
from prunus.method.selection import Selection
from prunus.method.signals import Signal
from prunus.method.view import Facts, View
from prunus.signals.pieces import best_of_pieces, piece_shares
from prunus.signals.topk import stable_topk

#: Decoder layers where no model is known: those of LLaVA-1.5-7B.
DEPTH = 32
#: All classes that were defined, by name.
KNOWN: dict[str, type[Method]] = {}


class Method:
    """Base class. Subclasses are frozen dataclasses that set ``name``, define :meth:`cuts` and one
    of :meth:`score`, :meth:`select` and :meth:`choose`.

    Attributes:
        name: short and unique; paper: where it is from; summary: one line for people.
        kind: "drop", "merge" or "edit": what its oracle must do.
        averages: ``keep`` is the average over all layers by the method's own definition, so that
            its budget is always a true one.
        leaves: no visual token stays at a stage for which :meth:`counts` says 0 (where others keep
            one).
        measured: parameters that a calibration file (:mod:`prunus.method.calibration`) must have.
        presets: settings that have a name, as published or as an ablation: ``clse@released``.
        compared: those of them that `prunus eval` takes by itself.
        either: parameters of which one has to be given where it is called by its name: without any
            of them it does nothing.
        calibrator: "module:function" of what `prunus calibrate` runs for it.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    kind: ClassVar[Literal["drop", "merge", "edit"]] = "drop"
    averages: ClassVar[bool] = False
    leaves: ClassVar[bool] = False
    measured: ClassVar[tuple[str, ...]] = ()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    compared: ClassVar[tuple[str, ...]] = ()
    either: ClassVar[tuple[str, ...]] = ()
    calibrator: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if own := cls.__dict__.get("__post_init__"):
            setattr(cls, "__post_init__", _with_checks(own))  # noqa: B010 - not for mypy
        if "name" in cls.__dict__:
            _know(cls)

    def __post_init__(self) -> None:
        """Fields are checked against their annotations, also where a subclass defines this."""
        check_fields(self)
        check_rest(self)

    @property
    def unit(self) -> Unit:
        """What ``keep`` counts the tokens of: an "image" (a video is one, and so are all tiles of a
        picture), each "frame", or an image whose frames share it: for what merges in the tower."""
        return "image"

    def bind(self, model: Facts) -> Method:
        """The method as it works on ``model``: what it has to load or to look up for it is there,
        in its fields.

        Raises:
            PrunusError: nothing was learned or measured for this model.
        """
        return self

    @property
    def title(self) -> str:
        """What reports call it: its name, and what it is composed of."""
        return self.name

    def parts(self, depth: int = DEPTH) -> Sequence[Method]:
        """What acts on a decoder of ``depth`` layers: the method itself, or the methods that it is
        composed of, in the order in which data meets them (:mod:`prunus.method.composition`)."""
        return (self,)

    def cuts(self, depth: int) -> Sequence[Cut]:
        """The stages of this method on a decoder of ``depth`` layers, in running order."""
        raise PrunusTypeError(f"{type(self).__name__} does not say where it cuts: define cuts()")

    def counts(self, keep: float | None, original: int, depth: int) -> Sequence[float] | None:
        """Tokens of an input with ``original`` of them that are left after each stage where
        ``keep`` are asked for; rounded down, at least one but where vision :attr:`leaves`. None: it
        finds its own count. By default ``keep`` after each."""
        return None if keep is None else [keep] * max(1, len(self.cuts(depth)))

    def score(self, stage: int, view: View) -> Tensor:
        """Float32 ``[G, n]``; the ``view.count`` largest are kept, ties by lower index."""
        raise PrunusTypeError(f"{type(self).__name__} defines neither score() nor select()")

    def select(self, stage: int, view: View) -> Selection:
        """Choose tokens; by default the ``view.count`` best of :meth:`score`."""
        return self.rank(stage, view, self.score(stage, view))

    def choose(self, stage: int, views: Sequence[View]) -> Sequence[Selection]:
        """Choose for the whole prompt: one selection for each of ``views``, which together hold all
        of its images. By default each is chosen by itself."""
        return [self.select(stage, view) for view in views]

    def rank(self, stage: int, view: View, scores: Tensor, each: bool = False) -> Selection:
        """The ``view.count`` best by ``scores`` ``[G, n]``; with ``each``, every frame and tile
        keeps its share of them, ranked by itself.

        Raises:
            PrunusError: scores of another shape, or NaN among them, or no count.
        """
        if view.count is None:
            raise PrunusError(
                f"{self.name} ranks tokens but has no count to keep: give it a field `keep`, or "
                "define counts()"
            )
        count, scores = min(view.count, view.present.shape[1]), self.checked(stage, view, scores)
        if each and view.grid.pieces > 1:
            counts = piece_shares(view.grid, view.present, count)
            return Selection(best_of_pieces(scores, view.grid, view.present, counts), scores)
        return Selection(stable_topk(scores, count), scores)

    def checked(self, stage: int, view: View, scores: Tensor) -> Tensor:
        """``scores`` ``[G, n]`` as float32.

        Raises:
            PrunusError: of another shape, or NaN among them.
        """
        scores = scores.float()
        if scores.shape != view.present.shape:
            raise PrunusError(
                f"{self.name}.score returned shape {tuple(scores.shape)}, "
                f"expected {tuple(view.present.shape)} (images, tokens)"
            )
        if bool(torch.isnan(scores).any()):
            raise PrunusError(f"{self.name}.score returned NaN at stage {stage}")
        return scores

    def macs(self, stage: int, grid: AnyGrid, present: int, width: int) -> float:
        """Multiply-accumulates that choosing among the ``present`` tokens of one image costs beyond
        the model's own work; ``width`` channels each."""
        return 0.0

    def neutral(self) -> Method:
        """The same method at the setting that changes nothing (keep everything).

        Raises:
            PrunusTypeError: no field ``keep``, so that it has to be said here what that is.
        """
        if "keep" not in {field.name for field in dataclasses.fields(self)}:  # type: ignore[arg-type]
            raise PrunusTypeError(
                f"{self.name} has no field `keep`: define neutral(), the setting that changes "
                "nothing"
            )
        return dataclasses.replace(self, keep=1.0)  # type: ignore[type-var]

    @property
    def adaptive(self) -> bool:
        """Whether the method may find nothing to do; the engine then says so."""
        return False

    @property
    def exact(self) -> bool:
        """Whether every image is left what :meth:`counts` says, and not only the mean of many."""
        return True


def _know(cls: type[Method]) -> None:
    """Know ``cls`` by its name. The same class made again (a notebook's cell) takes its place.

    Raises:
        PrunusError: another class has that name.
    """
    other = KNOWN.get(cls.name)
    if other is not None and (other.__module__, other.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise PrunusError(
            f"the method name {cls.name!r} of {cls.__module__}.{cls.__qualname__} is taken by "
            f"{other.__module__}.{other.__qualname__}: choose another"
        )
    KNOWN[cls.name] = cls


def acting(methods: Iterable[Method], depth: int = DEPTH) -> list[Method]:
    """``methods`` on a decoder of ``depth`` layers, with the parts of compositions in their
    places."""
    return [part for method in methods for part in method.parts(depth)]


def signals_of(method: Method, depth: int) -> list[Signal[Any]]:
    """All that ``method`` asks to see on a decoder of ``depth`` layers."""
    return [signal for cut in method.cuts(depth) for signal in cut.sees]


def looks_at_question(method: Method, depth: int) -> bool:
    """Whether the choice depends on the question: some signal does that ``method`` asks for."""
    return any(signal.asks for signal in signals_of(method, depth))


def runs_ahead(methods: Iterable[Method], depth: int = DEPTH) -> bool:
    """Whether any of ``methods`` has the first decoder layer run ahead of the language model."""
    parts = acting(methods, depth)
    return any(signal.ahead for part in parts for signal in signals_of(part, depth))


def _with_checks(own: Callable[[Any], None]) -> Callable[[Any], None]:
    """``__post_init__`` of a method, which needs to check no types."""

    @functools.wraps(own)
    def post_init(self: Any) -> None:
        check_fields(self, finite=False)
        own(self)
        check_rest(self)

    return post_init
