"""Panels of methods that decide where they act, and of attention that was edited."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from prunus.method import Edit
from prunus.results.events import Event
from prunus.results.report import spans
from prunus.results.trace import TraceEntry
from prunus.viz.entry import Before, Spot
from prunus.viz.figure import Panel
from prunus.viz.overlay import dim_dropped, heat_map, outlined

_TEXT = {
    "keep": "text looks at the image as usual",
    "cut": "text does not look at the image",
    "half": "text looks at the last half of the visual tokens only",
    "merge": "text sees one visual token (outlined) with the weight of all",
}


def attention_panel(entry: TraceEntry, spot: Spot, before: Before) -> Panel:
    """The image as it was, with what attention lost below; the visual token that takes the weight
    of all is outlined, in the image where it lies."""
    grid, drawn = spot.grid(entry), spot.picture
    if before.kept is not None:
        there = before.cells(before.kept[spot.sample][spot.image], spot, grid)
        drawn = dim_dropped(drawn, there, grid, spot.pane)
    sink = _sink(entry, spot, before)
    if sink is not None:
        drawn = outlined(drawn, before.cells([sink], spot, grid), grid, spot.pane)
    notes = []
    for edit, pairs in itertools.groupby(sorted(entry.edits.items()), key=lambda pair: pair[1]):
        notes.append(f"{spans([layer for layer, _ in pairs]).capitalize()}: {_lost(edit)}.")
    if entry.forgets:
        layers = spans(entry.forgets)
        notes.append(f"No visual tokens in the cache of {layers} while it answers.")
    touched = sorted({*entry.edits, *entry.forgets})
    what = "attention" if entry.edits else "cache"
    return Panel(drawn, f"{entry.method}: {what}, {spans(touched)}", "\n".join(notes))


def chosen_panel(entry: TraceEntry, spot: Spot, before: Before, event: Event) -> Panel:
    """How much each token mattered in the filtering layer, those that it chose outlined."""
    assert entry.scores is not None
    grid, kept = spot.grid(entry), entry.kept[spot.sample]
    scores = np.asarray(entry.scores[spot.sample][spot.image], dtype=np.float64)
    there = int((~np.isnan(scores)).sum())
    scores = before.spread(scores, spot)
    heat = heat_map(spot.picture, scores, grid, spot.pane, most=_most(entry.scores[spot.sample]))
    shown = before.cells(kept[spot.image], spot, grid)
    who = entry.method if event.layer_seen is None else f"layer {event.layer_seen}"
    what = f"the score of {entry.method} (square root)"
    if event.filters:
        what = f"how far the attention output of {who} moves without a token (L2, square root)"
    note = f"Colour: {what}. Outlined: chosen"
    if len(kept) > 1:
        note += f", {sum(map(len, kept))} in all"
    return Panel(
        outlined(heat, shown, grid, spot.pane),
        f"{who} chose {len(kept[spot.image])} of {there} ({event.label})",
        note + ".",
    )


def exit_panel(entry: TraceEntry, spot: Spot, event: Event) -> Panel:
    """Nothing left: the layer that vision does not reach."""
    found = f"none of the {event.before} visual tokens mattered any more"
    if not event.before:
        found = "no visual token was left"
    return Panel(
        dim_dropped(spot.picture, (), spot.grid(entry), spot.pane),
        f"vision leaves before layer {event.removed_from_layer} (exit)",
        f"Exit layer {event.layer_seen}: {found}.",
    )


def _lost(edit: Edit) -> str:
    words = [_TEXT[edit.text]] if edit.text != "keep" or edit.visual == "keep" else []
    words += ["visual tokens do not see each other"] if edit.visual == "cut" else []
    return ", ".join(words)


def _sink(entry: TraceEntry, spot: Spot, before: Before) -> int | None:
    """The token of this image that takes the weight of all in the first layer that merges."""
    merging = [edit for _, edit in sorted(entry.edits.items()) if edit.text == "merge"]
    if not merging:
        return None
    kept = (before.kept or entry.kept)[spot.sample]
    own = [(image, int(token)) for image, tokens in enumerate(kept) for token in tokens]
    if not -len(own) <= merging[0].sink < len(own):
        return None
    image, token = own[merging[0].sink]
    return token if image == spot.image else None


def _most(scores: Any) -> float:
    """The largest score of a sample, whose images share one scale of colours."""
    values = np.concatenate([np.asarray(own, dtype=np.float64) for own in scores])
    return float(np.nanmax(values)) if not np.isnan(values).all() else 0.0
