"""From a trace to panels: what each selection looked at, and what it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prunus.results.events import Event, in_order, label_of
from prunus.results.trace import TraceEntry
from prunus.viz.entry import Before, Spot, draw_entry, made_note
from prunus.viz.figure import Panel
from prunus.viz.overlay import heat_map, kept_cells
from prunus.viz.pane import pane_of, panes
from prunus.viz.seen import Picture
from prunus.viz.stages import attention_panel, chosen_panel, exit_panel

_NOTHING = "No visual token was removed."


def trace_panels(
    pictures: Sequence[Sequence[Picture]],
    trace: Sequence[TraceEntry],
    sample: int = 0,
) -> list[list[Panel]]:
    """One row per image, temporal slice of a video, or part of an image in tiles: the picture, then
    importance and kept patches of each stage, the regions that tokens were merged to, or what
    attention lost. Behind a merge, a kept token shows all it stands for. Entries in which nothing
    happened to the sample are left out; where none removed anything, the last panel says so. What
    captions say holds for all rows, and stands below the first.

    Args:
        pictures: for each image of the sample, its pictures as the model saw them: of a video one
            per slice of visual tokens, of an image in tiles one per part.
        trace: the entries of one prompt.
        sample: which sample of the batch.

    Raises:
        PrunusError: the number of images or of their pictures does not fit the trace.
    """
    done = [entry for entry in in_order(trace) if label_of(entry, sample) != ""]
    idle = all(entry.place == "attention" for entry in done)
    rows: list[list[Panel]] = []
    for image, seen in enumerate(pictures):
        for pane, picture in enumerate(seen):
            spot = Spot(picture, sample, image, pane)
            tiled = any(len(spot.grid(entry).parts) > 1 for entry in done[:1])
            kind = "video" if len(seen) > 1 and not tiled else "image"
            name = f"{kind} {image + 1}" if len(pictures) > 1 else "as the model saw it"
            if len(seen) > 1:
                name += f", {'part' if tiled else 'slice'} {pane + 1}"
            row, before = [Panel(picture, name)], Before()
            for entry in done:
                row += _panels(entry, spot, before)
                before = before.then(entry)
            if idle:
                row[-1] = replace(row[-1], caption=f"{row[-1].caption}\n{_NOTHING}".strip())
            rows.append([replace(panel, caption="") for panel in row] if rows else row)
    return rows


def fold(row: Sequence[Panel], most: int = 7) -> list[Sequence[Panel]]:
    """A long row in several: the first of at most ``most`` panels, which is odd (the picture, and
    pairs of importance and what was kept), and below it the pairs that are left. With 1, each is a
    row."""
    if most == 1:
        return [[panel] for panel in row]
    first, rest = row[:most], row[most:]
    return [first, *(rest[at : at + most - 1] for at in range(0, len(rest), most - 1))]


def _panels(entry: TraceEntry, spot: Spot, before: Before) -> list[Panel]:
    """What was important to ``entry`` and what it left."""
    grid, kept = spot.grid(entry), entry.kept[spot.sample][spot.image]
    if entry.place == "attention":
        return [attention_panel(entry, spot, before)]
    event = Event.at(entry, spot.sample, before.count(entry, spot.sample))
    if event is not None and event.label == "exit" and not event.kept:
        return [exit_panel(entry, spot, event)]
    drawn, done = draw_entry(entry, spot, before)
    count = f"{len(kept)} of {grid.size}"
    if len(panes(grid)) > 1:  # how many of them are in this slice or part
        here = pane_of(grid, spot.pane).of(kept_cells(kept, grid))
        count = f"{int(here.sum())} here, {count}"
    where = entry.place if entry.layer is None else f"layer {entry.layer}"
    left = Panel(drawn, f"{entry.method}: {count} {done}, {where}", made_note(entry, spot.sample))
    if entry.scores is None:
        return [left]
    if event is not None:
        note = f"{event.what}; {event.went}."
        note = f"{note[0].upper()}{note[1:]}\n{left.caption}".strip()
        left = replace(left, caption=note)
        return [chosen_panel(entry, spot, before, event), left]
    scores = before.spread(entry.scores[spot.sample][spot.image], spot)
    drawn = heat_map(spot.picture, scores, grid, spot.pane)
    return [Panel(drawn, f"importance, {where}"), left]
