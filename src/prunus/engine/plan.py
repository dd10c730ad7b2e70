"""Which method cuts where, checked against the model before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prunus.errors import PrunusError, PrunusTypeError
from prunus.families import Family
from prunus.method.base import Cut, Edit, Method


@dataclass(frozen=True)
class Step:
    """One stage of one method."""

    method: Method
    stage: int
    cut: Cut


@dataclass(frozen=True)
class Plan:
    """All stages in the order in which data meets them.

    Attributes:
        depth: decoder layers that run.
        features: stages before the language model; decoder: stages by layer.
        noted: decoder layers whose input states some stage wants to see again, and the layer of
            the last stage that does.
        encoder: the method that acts inside the vision tower, if there is one.
        looked: decoder layers whose attention some stage looks at.
        edits: what the attention of decoder layers loses; forgets: layers whose cache loses all
            visual tokens.
    """

    methods: tuple[Method, ...]
    depth: int
    features: tuple[Step, ...]
    decoder: dict[int, tuple[Step, ...]]
    noted: dict[int, int]
    encoder: Method | None = None
    edits: dict[int, Edit] = field(default_factory=dict)
    forgets: frozenset[int] = frozenset()
    looked: frozenset[int] = frozenset()

    @property
    def removes(self) -> bool:
        """Whether layers may run, or caches hold, less than the whole prompt."""
        return bool(self.features or self.decoder or self.forgets or self.encoder is not None)

    @property
    def query_dependent(self) -> bool:
        return any(method.query_dependent for method in self.methods)

    @property
    def reads_features(self) -> bool:
        return any(step.method.reads_features for step in self.features)

    @property
    def last(self) -> Method:
        """The method whose stage data meets last: its count is what is left."""
        if self.decoder:
            return self.decoder[max(self.decoder)][-1].method
        return self.features[-1].method if self.features else self.methods[-1]

    @property
    def name(self) -> str:
        return " + ".join(method.name for method in self.methods)


def make_plan(methods: Sequence[Method], family: Family, positions: str) -> Plan:
    """Resolve the stages of ``methods`` on the model of ``family``.

    Raises:
        PrunusError: a layer the model does not have, stages out of order, a method that needs the
            whole grid behind one that removes tokens, an unknown position policy.
    """
    if not methods:
        raise PrunusError("no method given: name one, for example prunus.prune(model, 'clse')")
    methods = [method.fit(family) for method in methods]
    depth = len(family.layers)
    inside = [method for method in methods if method.acts_in_tower]
    if len(inside) > 1:
        raise PrunusError(
            f"{' and '.join(method.name for method in inside)} both merge inside the vision tower: "
            "give one of them"
        )
    steps = [
        Step(method, stage, cut)
        for method in methods
        for stage, cut in enumerate(method.cuts(depth))
    ]
    for step in steps:
        _check_step(step, depth)
    for method in methods:
        layers = [-1 if step.cut.layer is None else step.cut.layer for step in _of(steps, method)]
        if any(later <= earlier for earlier, later in itertools.pairwise(layers)):
            raise PrunusError(f"{method.name}: its stages must lie at increasing layers")
    ordered = sorted(steps, key=lambda step: -1 if step.cut.layer is None else step.cut.layer)
    for before, step in enumerate(ordered):
        others = [other for other in ordered[:before] if other.method is not step.method]
        if step.stage == 0 and step.method.needs_intact_grid and others:
            raise PrunusError(
                f"{step.method.name} needs the whole grid of each image, but "
                f"{others[-1].method.name} removes tokens before it: change their order or layers"
            )
        if inside and step.stage == 0 and step.method.needs_intact_grid:
            _check_spread(step.method, inside[0])
    edits = _edits(methods, depth)
    for step in steps:
        if touched := sorted(set(step.cut.attention) & set(edits)):
            raise PrunusError(
                f"{step.method.name} looks at the attention of layer {touched[0]}, which "
                f"{_editor(methods, touched[0], depth)} edits: choose other layers"
            )
    features = tuple(step for step in ordered if step.cut.layer is None)
    decoder: dict[int, tuple[Step, ...]] = {}
    for step in ordered:
        if step.cut.layer is not None:
            decoder[step.cut.layer] = (*decoder.get(step.cut.layer, ()), step)
    if positions not in ("original", "compact"):
        raise PrunusError(f"positions={positions!r}: choose 'original' or 'compact'")
    if positions == "compact" and decoder:
        raise PrunusError(
            "positions='compact' is for tokens removed before the language model: "
            f"{next(iter(decoder.values()))[0].method.name} removes them inside it"
        )
    noted: dict[int, int] = {}
    for step in ordered:
        for layer in (*step.cut.snapshots, *step.cut.attention):
            noted[layer] = step.cut.layer or 0  # in running order: the last one stays
    forgets = frozenset(layer for method in methods for layer in method.forgets(depth))
    _check_layers(forgets, depth, "the cache")
    looked = frozenset(layer for step in steps for layer in step.cut.attention)
    tower = inside[0] if inside else None
    return Plan(tuple(methods), depth, features, decoder, noted, tower, edits, forgets, looked)


def _edits(methods: Sequence[Method], depth: int) -> dict[int, Edit]:
    edits: dict[int, Edit] = {}
    for method in methods:
        for layer, edit in method.edits(depth).items():
            if layer in edits:
                raise PrunusError(
                    f"{_editor(methods, layer, depth)} and {method.name} both edit the attention "
                    f"of layer {layer}: give them different layers"
                )
            edits[layer] = edit
    _check_layers(edits, depth, "the attention")
    return edits


def _editor(methods: Sequence[Method], layer: int, depth: int) -> str:
    """The first method that edits the attention of ``layer``."""
    return next(method.name for method in methods if layer in method.edits(depth))


def _check_layers(layers: Iterable[int], depth: int, what: str) -> None:
    wrong = [layer for layer in layers if not 0 <= layer < depth]
    if wrong:
        raise PrunusError(
            f"cannot change {what} of layer {wrong[0]}: the model has layers 0 to {depth - 1}"
        )


def _check_spread(method: Method, before: Method) -> None:
    """Behind a merge, the score of a method that needs the whole grid is computed on survivors
    spread back over it and averaged: that takes a score, not a selection of its own."""
    if before is not method and type(method).select is not Method.select:
        raise PrunusError(
            f"{method.name} needs the whole grid and makes its own selection, so it cannot run "
            f"behind {before.name}, which merges tokens"
        )


def _of(steps: list[Step], method: Method) -> list[Step]:
    return [step for step in steps if step.method is method]


def _check_step(step: Step, depth: int) -> None:
    name, cut = step.method.name, step.cut
    seen = (*cut.snapshots, *cut.attention)
    if cut.layer is None:
        if seen or cut.trim_cache:
            raise PrunusError(f"{name}: before the language model there is no layer to look at")
        return
    if isinstance(cut.layer, bool) or not isinstance(cut.layer, int):
        raise PrunusTypeError(f"{name}: layer {cut.layer!r} is no integer")
    if not 0 <= cut.layer < depth:
        raise PrunusError(
            f"{name}: cannot cut at layer {cut.layer}, the model has layers 0 to {depth - 1}"
        )
    late = [layer for layer in seen if not 0 <= layer < cut.layer]
    if late:
        raise PrunusError(
            f"{name}: a cut at layer {cut.layer} cannot look at layer {late[0]}, "
            "only at layers that ran before it"
        )
