"""What a method that decides where it acts did to one sample, and counts per layer in a line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from prunus.results.trace import TraceEntry

_FILTERS = {"filter": "filtering layer", "forced": "forced filtering layer"}


@dataclass(frozen=True)
class Event:
    """Something that a method decided about one sample while its prompt ran.

    Attributes:
        method: its name; label: one word for what happened, such as "filter" or "exit".
        layer_seen: the decoder layer whose attention it looked at, None before the decoder.
        removed_from_layer: first decoder layer without the tokens that went.
        before, kept: visual tokens of the sample, all images together.
        merged: some of those that were not kept are part of others now.
    """

    method: str
    label: str
    layer_seen: int | None
    removed_from_layer: int | None
    before: int
    kept: int
    merged: bool = False

    @classmethod
    def at(cls, entry: TraceEntry, sample: int, before: int) -> Event | None:
        """What happened to ``sample`` at ``entry``, which met ``before`` of its tokens."""
        label = label_of(entry, sample)
        if not label:
            return None
        kept = sum(len(tokens) for tokens in entry.kept[sample])
        seen = None if entry.layer is None else entry.layer - 1
        merged = entry.mix is not None and any(len(into) for into, _, _ in entry.mix[sample])
        return cls(entry.method, label, seen, entry.layer, before, kept, merged)

    def facts(self) -> dict[str, str | int | None]:
        """As plain JSON values."""
        return {
            "method": self.method,
            "label": self.label,
            "layer_seen": self.layer_seen,
            "removed_from_layer": self.removed_from_layer,
            "kept": self.kept,
        }

    def __str__(self) -> str:
        count = f"{self.kept} of {self.before} visual tokens stay"
        return f"{self.method}: {self.what}, {count}, {self.went}"

    @property
    def what(self) -> str:
        """What happened, and where, in words."""
        if self.layer_seen is None:
            return f"{self.label} before the language model"
        return f"{_FILTERS.get(self.label, f'{self.label} layer')} {self.layer_seen}"

    @property
    def went(self) -> str:
        """What became of the tokens that were not kept, in words."""
        if self.kept == self.before:
            return "nothing goes"
        who = "the others" if self.kept else "all"
        what = "merged or gone" if self.merged else "gone"
        return f"{who} are {what} from layer {self.removed_from_layer or 0} on"

    @property
    def filters(self) -> bool:
        """Whether tokens were judged by what attention gives without them."""
        return self.label in _FILTERS


def label_of(entry: TraceEntry, sample: int) -> str | None:
    """What happened to ``sample``, whose images share their fate; "" where nothing did, None where
    the method does not decide by itself."""
    if entry.labels is None:
        return None
    return next((label for label in entry.labels[sample] if label), "")


def events_of(trace: Sequence[TraceEntry], sample: int = 0) -> list[Event]:
    """The events of one sample in their order; empty for methods that are told what to do."""
    if not trace:
        return []
    before = sum(grid.size for grid in trace[0].grid[sample])
    found = []
    for entry in in_order(trace):
        if entry.place != "attention":
            found.append(Event.at(entry, sample, before))
            before = sum(len(tokens) for tokens in entry.kept[sample])
    return [event for event in found if event is not None]


def in_order(trace: Sequence[TraceEntry]) -> list[TraceEntry]:
    """The entries as data meets them: edits of attention, of which the trace tells first, come
    behind everything that was removed at or before their first layer."""
    found = [entry for entry in trace if entry.place != "attention"]
    for entry in trace:
        if entry.place == "attention":
            layers = [-1 if other.layer is None else other.layer for other in found]
            first = -1 if entry.layer is None else entry.layer
            found.insert(next((n for n, at in enumerate(layers) if at > first), len(found)), entry)
    return found


def by_layers(counts: Sequence[float]) -> str:
    """``[576, 576, 12, 0]`` as ``0-1: 576, 2: 12, 3: 0``."""
    parts = []
    for count, group in itertools.groupby(enumerate(counts), key=lambda pair: pair[1]):
        layers = [layer for layer, _ in group]
        span = f"{layers[0]}" if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"
        parts.append(f"{span}: {count:g}")
    return ", ".join(parts)
