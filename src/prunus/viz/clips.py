"""The videos of a prompt with what was kept of them: films, and contact sheets of these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunus.viz.as_seen import frames_as_seen
from prunus.viz.figure import Panel
from prunus.viz.film import Film, sheet_rows

if TYPE_CHECKING:
    from prunus.grid import AnyGrid
    from prunus.inference.answer import Answer
    from prunus.inference.videos import Excerpt

#: The fewest frames that fill a row of a contact sheet.
_COLUMNS = 8


def owners(order: Sequence[str], counts: Sequence[int], grids: Sequence[AnyGrid]) -> list[int]:
    """For each of the inputs with these ``grids`` the place in ``order``, which says what the
    prompt has, an image or a video: families may make several inputs of one video. ``counts`` are
    frames of the videos."""
    if len(grids) == len(order):
        return list(range(len(order)))
    found: list[int] = []
    left, frames = iter(grids), iter(counts)
    for place, kind in enumerate(order):
        missing = next(frames) if kind == "video" else 1
        while missing > 0 and (grid := next(left, None)) is not None:
            missing -= grid.shows
            found.append(place)
    if len(found) < len(grids):
        raise RuntimeError(f"{len(grids)} visual inputs for {order} of {counts} frames")
    return found


def films(
    videos: Sequence[Excerpt], order: Sequence[str], result: Answer, processor: Any, encoded: Any
) -> list[list[Film]]:
    """Each video with what was kept of it, in as many pieces as the model has inputs for it;
    ``order`` is that of images and videos in the prompt, which ``processor`` ``encoded``."""
    seen = frames_as_seen(processor, encoded, [video.frames for video in videos])
    places = owners(order, [len(video.frames) for video in videos], result.grids)
    wanted = [place for place, kind in enumerate(order) if kind == "video"]
    found: list[list[Film]] = []
    for number, (video, place) in enumerate(zip(videos, wanted, strict=True), 1):
        own = [image for image, owner in enumerate(places) if owner == place]
        pieces, at = [], 0
        for image in own:
            grid = result.grids[image]
            end = len(video.frames) if len(own) == 1 else at + grid.shows
            frames, times = seen[number - 1][at:end], video.times[at:end]
            pieces.append(Film(frames, times, grid, image, result.trace, video=number))
            at = end
        found.append(pieces)
    return found


def sheet(video: Excerpt, pieces: Sequence[Film]) -> list[list[Panel]]:
    """Rows of panels: every frame, and below what is to be known of all."""
    kept = sum(sum(film.kept) for film in pieces)
    note = f"{video.name}: {kept} of {sum(film.grid.size for film in pieces)} visual tokens left"
    if pieces[0].together > 1:
        note += f"; each covers {pieces[0].together} frames, which share their count"
    if sum(sum(film.at_the_end) for film in pieces) < kept:
        note += "; in the end all of them leave"
    if any(film.merges for film in pieces):
        note += "; regions of merged ones in their mean colour"
    count = len(video.frames)
    columns = min(count, max(_COLUMNS, math.ceil(math.sqrt(count))))
    return sheet_rows(pieces, columns, f"{note}.")
