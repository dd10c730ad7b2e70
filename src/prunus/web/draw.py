"""Pictures of an answer: what was kept, what was important, all stages. They are drawn by
``prunus.viz``; here is chosen which, and how large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.inference.answer import Answer
from prunus.results.events import Event, in_order
from prunus.results.trace import TraceEntry
from prunus.viz.as_seen import pictures_as_seen
from prunus.viz.clips import films, owners
from prunus.viz.entry import Before, Spot, draw_entry, last_removal
from prunus.viz.figure import Panel
from prunus.viz.film import Film, as_bytes
from prunus.viz.overlay import heat_map, kept_cells
from prunus.viz.pane import pane_of, panes
from prunus.viz.panels import trace_panels
from prunus.viz.seen import Picture
from prunus.viz.stages import chosen_panel
from prunus.web.source import Prompt

#: What can be looked at.
VIEWS = ("kept", "scores", "stages", "as seen")
_ALONE, _AMONG = 768, 320  # pixels of the longer side of one picture, and of each of several
_COLOUR = 0.25  # that dropped patches keep of their own: no other picture shows what was there


@dataclass(frozen=True)
class Drawn:
    """A picture in 8 bits, ``[h, w, 3]``, and what stands below it."""

    picture: NDArray[np.uint8]
    caption: str


def draw(processor: Any, prompt: Prompt, answer: Answer, view: str) -> list[Drawn]:
    """The pictures of one of :data:`VIEWS`: of an image one (or one for each of its parts), of a
    video one for each frame, or for each slice of visual tokens where scores are shown."""
    shown = _Shown(processor, prompt, answer)
    if view == "stages":
        found = shown.stages()
    elif view == "scores":
        found = shown.scores()
    elif view == "kept":
        found = shown.kept()
    else:
        found = shown.plain()
    side = _ALONE if len(found) == 1 else _AMONG
    return [Drawn(_enlarged(one.picture, side), _told(one)) for one in found]


class _Shown:
    """An answer with the pictures that the model saw."""

    def __init__(self, processor: Any, prompt: Prompt, answer: Answer) -> None:
        self.answer = answer
        counts = [len(video.frames) for video in prompt.videos]
        places = owners(prompt.order, counts, answer.grids)
        self.films: dict[int, Film] = {
            film.image: film
            for pieces in films(prompt.videos, prompt.order, answer, processor, prompt.cpu)
            for film in pieces
        }
        still = [
            grid
            for place, grid in zip(places, answer.grids, strict=True)
            if prompt.order[place] == "image"
        ]
        seen = iter(
            pictures_as_seen(processor, prompt.cpu, [[one] for one in prompt.images], still)
            if still
            else ()
        )
        self.pictures: list[list[Picture]] = []
        for image in range(len(answer.grids)):
            film = self.films.get(image)
            self.pictures.append(next(seen) if film is None else _slices(processor, film))

    def spots(self) -> Iterator[tuple[Spot, str]]:
        """Every picture with its place and name."""
        for image, own in enumerate(self.pictures):
            for pane, picture in enumerate(own):
                words = [f"image {image + 1}"] if len(self.pictures) > 1 else []
                if len(own) > 1:
                    words += [f"{'slice' if image in self.films else 'part'} {pane + 1}"]
                yield Spot(picture, 0, image, pane), ", ".join(words)

    def plain(self) -> list[Panel]:
        return [Panel(spot.picture, name or "as the model saw it") for spot, name in self.spots()]

    def kept(self) -> list[Panel]:
        found: list[Panel] = []
        removal = last_removal(self.answer.trace, 0)
        for spot, name in self.spots():
            film = self.films.get(spot.image)
            if film is not None:
                if spot.pane == 0:
                    found += map(Panel, film.drawn(), film.titles())
            elif removal is None:
                found.append(Panel(spot.picture, _joined(name, "nothing was removed")))
            else:
                entry, before = removal
                drawn, done = draw_entry(entry, spot, before, _COLOUR)
                found.append(Panel(drawn, _joined(name, f"{_count(entry, spot)} {done}")))
        return found

    def scores(self) -> list[Panel]:
        rated = _last_rated(self.answer.trace)
        if rated is None:
            why = "no scores: the method gives none"
            return [Panel(spot.picture, _joined(name, why)) for spot, name in self.spots()]
        entry, before = rated
        assert entry.scores is not None
        event = Event.at(entry, 0, before.count(entry, 0))
        found = []
        for spot, name in self.spots():
            if event is not None:
                panel = chosen_panel(entry, spot, before, event)
                found.append(Panel(panel.picture, _joined(name, panel.title)))
                continue
            scores = before.spread(entry.scores[0][spot.image], spot)
            drawn = heat_map(spot.picture, scores, spot.grid(entry), spot.pane)
            where = entry.place if entry.layer is None else f"layer {entry.layer}"
            found.append(Panel(drawn, _joined(name, f"importance by rank, {where}")))
        return found

    def stages(self) -> list[Panel]:
        if not self.answer.trace:
            return self.plain()
        rows = trace_panels(self.pictures, self.answer.trace)
        return [panel for row in rows for panel in row]


def _slices(processor: Any, film: Film) -> list[Picture]:
    """A picture for each slice of a film, of each part of it: frames are as they were seen."""
    [found] = pictures_as_seen(processor, {}, [film.frames], [film.grid])
    return found


def _last_rated(trace: Sequence[TraceEntry]) -> tuple[TraceEntry, Before] | None:
    """The entry that gave scores last, and what was there before it."""
    found, before = None, Before()
    for entry in in_order(trace):
        if entry.scores is not None and any(len(own) for own in entry.kept[0]):
            found = (entry, before)
        before = before.then(entry)
    return found


def _count(entry: TraceEntry, spot: Spot) -> str:
    """How many tokens are left of a picture."""
    grid, kept = spot.grid(entry), entry.kept[0][spot.image]
    if len(panes(grid)) == 1:
        return f"{len(kept)} of {grid.size}"
    here = pane_of(grid, spot.pane)
    return f"{int(here.of(kept_cells(kept, grid)).sum())} of {here.grid.size}"


def _joined(name: str, words: str) -> str:
    return f"{name}: {words}" if name else words


def _told(panel: Panel) -> str:
    return " ".join([panel.title, *panel.caption.split()])


def _enlarged(picture: Picture, side: int) -> NDArray[np.uint8]:
    """``picture`` enlarged a whole number of times, so that patches keep sharp edges, until its
    longer side has about ``side`` pixels."""
    times = max(1, round(side / max(picture.shape[:2])))
    large: NDArray[np.uint8] = as_bytes(picture).repeat(times, axis=0).repeat(times, axis=1)
    return large
