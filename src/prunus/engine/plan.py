"""Which method cuts where, checked against the model before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from prunus.families import Family
from prunus.method import Cut, Method


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
        features: stages before the language model; decoder: stages by layer.
        noted: decoder layers whose input states some stage wants to see again.
        encoder: the method that acts inside the vision tower, if there is one.
    """

    methods: tuple[Method, ...]
    features: tuple[Step, ...]
    decoder: dict[int, tuple[Step, ...]]
    noted: set[int]
    encoder: Method | None = None

    @property
    def query_dependent(self) -> bool:
        return any(method.query_dependent for method in self.methods)

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
        ValueError: a layer the model does not have, stages out of order, a method that needs the
            whole grid behind one that removes tokens, an unknown position policy.
    """
    if not methods:
        raise ValueError("no method given: name one, for example prunus.prune(model, 'clse')")
    depth = len(family.layers)
    inside = [method for method in methods if method.acts_in_tower]
    if len(inside) > 1:
        raise ValueError(
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
            raise ValueError(f"{method.name}: its stages must lie at increasing layers")
    ordered = sorted(steps, key=lambda step: -1 if step.cut.layer is None else step.cut.layer)
    for before, step in enumerate(ordered):
        others = [other for other in ordered[:before] if other.method is not step.method]
        if step.stage == 0 and step.method.needs_intact_grid and others:
            raise ValueError(
                f"{step.method.name} needs the whole grid of each image, but "
                f"{others[-1].method.name} removes tokens before it: change their order or layers"
            )
        if inside and step.stage == 0 and step.method.needs_intact_grid:
            _check_spread(step.method, inside[0])
    if any(step.cut.attention for step in steps):
        family.check_attention()
    features = tuple(step for step in ordered if step.cut.layer is None)
    decoder: dict[int, tuple[Step, ...]] = {}
    for step in ordered:
        if step.cut.layer is not None:
            decoder[step.cut.layer] = (*decoder.get(step.cut.layer, ()), step)
    if positions not in ("original", "compact"):
        raise ValueError(f"positions={positions!r}: choose 'original' or 'compact'")
    if positions == "compact" and decoder:
        raise ValueError(
            "positions='compact' is for tokens removed before the language model: "
            f"{next(iter(decoder.values()))[0].method.name} removes them inside it"
        )
    noted = {layer for step in steps for layer in (*step.cut.snapshots, *step.cut.attention)}
    return Plan(tuple(methods), features, decoder, noted, inside[0] if inside else None)


def _check_spread(method: Method, before: Method) -> None:
    """Behind a merge, the score of a method that needs the whole grid is computed on survivors
    spread back over it and averaged: that takes a score, not a selection of its own."""
    if before is not method and type(method).select is not Method.select:
        raise ValueError(
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
            raise ValueError(f"{name}: before the language model there is no layer to look at")
        return
    if isinstance(cut.layer, bool) or not isinstance(cut.layer, int):
        raise TypeError(f"{name}: layer {cut.layer!r} is no integer")
    if not 0 <= cut.layer < depth:
        raise ValueError(
            f"{name}: cannot cut at layer {cut.layer}, the model has layers 0 to {depth - 1}"
        )
    late = [layer for layer in seen if not 0 <= layer < cut.layer]
    if late:
        raise ValueError(
            f"{name}: a cut at layer {cut.layer} cannot look at layer {late[0]}, "
            "only at layers that ran before it"
        )
