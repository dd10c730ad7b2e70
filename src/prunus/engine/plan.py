"""Which method cuts where, checked against the model before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prunus.engine.ahead import check_ahead
from prunus.engine.readers import check_readers
from prunus.engine.recurrent import check_recurrent
from prunus.errors import PrunusError, PrunusTypeError, shown
from prunus.families import Family
from prunus.method import Cut, Edit, EditsAttention, Method, acting, tower_part
from prunus.method.budget import Budget, Meaning
from prunus.method.signals import Signal


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
        budget: how many tokens each stage is to leave.
        features: stages before the language model; decoder: stages by layer.
        noted: decoder layers whose input states some stage wants to see again, and the layer of
            the last stage that does.
        in_tower: the method that acts inside the vision tower, if there is one.
        edits: what the attention of decoder layers loses; forgets: layers whose cache loses all
            visual tokens.
        looked: decoder layers whose attention some later stage looks at; peeked: those that are
            looked at before they run; whole: those of which more than one row is looked at.
        tower_looks: what is looked at of blocks of the vision tower, by block.
        reads_features: some stage looks at what enters the projector; summary: at the CLS feature.
        recurrent: layers of the model that have a state instead of keys and values.
        words: some stage reads the prompt's words; asks: some stage's choice depends on the
        question.
    """

    methods: tuple[Method, ...]
    depth: int
    budget: Budget
    features: tuple[Step, ...]
    decoder: dict[int, tuple[Step, ...]]
    noted: dict[int, int]
    in_tower: Method | None = None
    edits: dict[int, Edit] = field(default_factory=dict)
    forgets: frozenset[int] = frozenset()
    looked: frozenset[int] = frozenset()
    peeked: frozenset[int] = frozenset()
    whole: frozenset[int] = frozenset()
    tower_looks: dict[int, frozenset[Any]] = field(default_factory=dict)
    reads_features: bool = False
    summary: bool = False
    recurrent: frozenset[int] = frozenset()
    words: bool = False
    asks: bool = False
    title: str = ""

    @property
    def removes(self) -> bool:
        """Whether layers may run, or caches hold, less than the whole prompt."""
        return bool(self.features or self.decoder or self.forgets or self.in_tower is not None)

    @property
    def cuts(self) -> bool:
        """Whether layers may run on less than the whole prompt."""
        return bool(self.features or self.decoder or self.in_tower is not None)

    @property
    def compacts(self) -> bool:
        """Whether positions are closed up inside the decoder."""
        return any(step.cut.compact for steps in self.decoder.values() for step in steps)

    @property
    def name(self) -> str:
        return " + ".join(method.name for method in self.methods)


def make_plan(
    methods: Sequence[Method], family: Family, positions: str, budget: Meaning = "nominal"
) -> Plan:
    """Resolve the stages of ``methods`` on the model of ``family``.

    Raises:
        PrunusError: a layer the model does not have, stages out of order, a method that needs the
            whole grid behind one that removes tokens, an unknown position policy, a budget without
            a count, something that a layer with linear attention, or without keys of its own,
            cannot give.
    """
    if not methods:
        raise PrunusError("no method given: name one, for example prunus.prune(model, 'clse')")
    given = [method.bind(family) for method in methods]
    depth = len(family.layers)
    methods = acting(given, depth)
    inside = [method for method in methods if tower_part(method)]
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
    _check_order(ordered, inside)
    edits = _edits(methods, depth)
    attended = [(step, one) for step in ordered for one in step.cut.sees if one.keeps != "states"]
    for step, signal in attended:
        if signal.layer in edits:
            raise PrunusError(
                f"{step.method.name} looks at the attention of layer {signal.layer}, which "
                f"{_editor(methods, signal.layer, depth)} edits: choose other layers"
            )
    features = tuple(step for step in ordered if step.cut.layer is None)
    decoder: dict[int, tuple[Step, ...]] = {}
    for step in ordered:
        if step.cut.layer is not None:
            decoder[step.cut.layer] = (*decoder.get(step.cut.layer, ()), step)
    _check_positions(positions, decoder)
    signals = [signal for step in steps for signal in step.cut.sees]
    noted: dict[int, int] = {}
    for step in ordered:
        for signal in step.cut.sees:
            if signal.layer is not None:
                noted[signal.layer] = step.cut.layer or 0  # in running order: the last one stays
    forgets = frozenset(
        layer
        for method in methods
        if isinstance(method, EditsAttention)
        for layer in method.forgets(depth)
    )
    _check_layers(forgets, depth, "the cache")
    recurrent = family.recurrent
    if recurrent:
        check_recurrent(recurrent, depth, methods, [(step.method, step.cut) for step in ordered])
    if readers := family.readers:
        check_readers(readers, depth, methods, [(step.method, step.cut) for step in ordered])
    if family.along:
        _check_along(family, decoder)
    for step in ordered:
        if any(one.ahead for one in step.cut.sees):
            check_ahead(family, step.method.name)
    peeked = {one.layer for step, one in attended if one.layer == step.cut.layer}
    return Plan(
        title=" + ".join(method.title for method in given),
        methods=tuple(methods),
        depth=depth,
        budget=Budget(given, depth, budget),
        features=features,
        decoder=decoder,
        noted=noted,
        in_tower=inside[0] if inside else None,
        edits=edits,
        forgets=forgets,
        looked=_layers(one.layer for step, one in attended if one.layer != step.cut.layer),
        peeked=_layers(peeked),
        whole=_layers(one.layer for _, one in attended if one.keeps == "all"),
        tower_looks=_tower_looks(signals, family),
        reads_features=any(one.tower == "features" for one in signals),
        summary=any(one.summary for one in signals),
        recurrent=recurrent,
        words=any(one.words for one in signals),
        asks=any(one.asks for one in signals),
    )


def _check_along(family: Family, decoder: Mapping[int, Sequence[Step]]) -> None:
    """Raise PrunusError for new tokens where each has inputs of its own in every layer."""
    for layer, steps in decoder.items():
        for step in steps:
            if step.method.kind == "merge":
                raise PrunusError(
                    f"{step.method.name} makes new tokens at decoder layer {layer}, but this "
                    f"language model gives every token something of its own in each layer "
                    f"({', '.join(family.along)}), which a token made of several does not have: "
                    "choose a method that keeps tokens as they are, or makes new ones before the "
                    "language model"
                )


def _layers(layers: Iterable[int | None]) -> frozenset[int]:
    return frozenset(layer for layer in layers if layer is not None)


def _tower_looks(signals: Sequence[Signal[Any]], family: Family) -> dict[int, frozenset[Any]]:
    """Names of what is looked at, by block.

    Raises:
        PrunusError: a block that the tower does not have, or a tower that cannot be looked at.
    """
    found: dict[int, set[str]] = {}
    for signal in signals:
        if signal.tower != "block":
            continue
        tower = family.tower_adapter()
        block = tower.number(signal.block)
        if signal.block != "next" and not 0 <= block < tower.read:
            raise PrunusError(
                f"{signal}: the vision tower has blocks 0 to {tower.read - 1} that reach the "
                "projector"
            )
        found.setdefault(block, set()).add(signal.kept_as)
    return {block: frozenset(names) for block, names in found.items()}


def _check_positions(positions: str, decoder: Mapping[int, tuple[Step, ...]]) -> None:
    if positions not in ("original", "compact"):
        raise PrunusError(f"positions={positions!r}: choose 'original' or 'compact'")
    if positions == "compact" and decoder:
        raise PrunusError(
            "positions='compact' is for tokens removed before the language model: "
            f"{next(iter(decoder.values()))[0].method.name} removes them inside it"
        )


def _check_order(ordered: Sequence[Step], inside: Sequence[Method]) -> None:
    """A method that needs the whole grid may run behind those that merge, if it only scores: its
    scores are then computed on survivors spread back over the grid, and averaged."""
    for before, step in enumerate(ordered):
        if step.stage or not step.cut.whole:
            continue
        others = [other.method for other in ordered[:before] if other.method is not step.method]
        droppers = [method for method in others if method.kind != "merge"]
        if droppers:
            raise PrunusError(
                f"{step.method.name} needs the whole grid of each image, but "
                f"{droppers[-1].name} removes tokens before it: change their order or layers"
            )
        mergers = [method for method in (*inside, *others) if method is not step.method]
        if mergers and type(step.method).select is not Method.select:
            raise PrunusError(
                f"{step.method.name} needs the whole grid and makes its own selection, so it "
                f"cannot run behind {mergers[0].name}, which merges tokens"
            )


def _edits(methods: Sequence[Method], depth: int) -> dict[int, Edit]:
    edits: dict[int, Edit] = {}
    for method in methods:
        if not isinstance(method, EditsAttention):
            continue
        for layer, edit in method.edits(depth).items():
            if layer in edits:
                raise PrunusError(
                    f"{_editor(methods, layer, depth)} and {method.name} both edit the attention "
                    f"of layer {layer}: give them different layers"
                )
            edits[layer] = edit
    _check_layers(edits, depth, "the attention")
    return edits


def _editor(methods: Sequence[Method], layer: int | None, depth: int) -> str:
    """The first method that edits the attention of ``layer``."""
    return next(
        method.name
        for method in methods
        if isinstance(method, EditsAttention) and layer in method.edits(depth)
    )


def _check_layers(layers: Iterable[int], depth: int, what: str) -> None:
    wrong = [layer for layer in layers if not 0 <= layer < depth]
    if wrong:
        raise PrunusError(
            f"cannot change {what} of layer {wrong[0]}: the model has layers 0 to {depth - 1}"
        )


def _of(steps: list[Step], method: Method) -> list[Step]:
    return [step for step in steps if step.method is method]


def _check_step(step: Step, depth: int) -> None:
    name, cut = step.method.name, step.cut
    strange = [signal for signal in cut.sees if not isinstance(signal, Signal)]
    if strange:
        raise PrunusTypeError(f"{name}: {shown(strange[0])} in Cut(sees=...) is no signal")
    seen = [signal for signal in cut.sees if signal.layer is not None]
    if cut.layer is not None and any(one.ahead for one in cut.sees):
        raise PrunusError(
            f"{name}: a cut at decoder layer {cut.layer} asks what the first layer would make of "
            "its tokens, which is for cuts before the language model: name States(1) instead"
        )
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
    for one in seen:
        last = cut.layer - (one.keeps == "states")  # what enters this layer is States()
        if one.layer is not None and not 0 <= one.layer <= last:
            raise PrunusError(
                f"{name}: a cut at layer {cut.layer} cannot look at layer {one.layer}, only at "
                "layers that ran before it (and at the attention of the one that is about to run)"
            )
