"""Videos of ``prunus run``: options, the frames that are read, what is told and drawn of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import busy, progress
from prunus.cli.errors import BadInput
from prunus.cli.options import MOST

if TYPE_CHECKING:
    from prunus.grid import AnyGrid
    from prunus.inference.answer import Answer
    from prunus.inference.sampling import Sampling
    from prunus.inference.videos import Excerpt, Planned
    from prunus.viz.film import Film

Video = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="A video: a file, a folder of frames, an animated GIF or WebP, builtin:0 to "
        "builtin:119; or, repeated, image files that are the frames of one.",
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=1e4, help="Frames to take per second of video; default 2.", show_default=False
    ),
]
Frames = Annotated[
    int | None, typer.Option(min=1, max=MOST, help="Instead: so many frames, evenly spaced.")
]
MaxFrames = Annotated[
    int | None,
    typer.Option(
        min=1, max=MOST, help="Most frames of a video; longer ones get fewer per s; default 64."
    ),
]
Start = Annotated[float, typer.Option(min=0, max=MOST, help="Second of the video to begin at.")]
End = Annotated[
    float | None, typer.Option(min=0, max=MOST, help="Second of the video to end before.")
]
SourceFps = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=1e4, help="Frames per second of a folder or of image files, as recorded."
    ),
]
SaveAnimation = Annotated[
    Path | None,
    typer.Option(metavar="FILE.gif|.webp", help="Animate what was kept of the video."),
]

#: Inches of a side of a frame on a contact sheet, and the fewest that fill a row.
SIDE, _COLUMNS = 1.6, 8


def check_unused(sampling: Sampling, animation: Path | None) -> None:
    """Raise BadInput where an option speaks of videos, and none is given."""
    given = {
        "--fps": sampling.fps,
        "--frames": sampling.frames,
        "--max-frames": sampling.most,
        "--start": sampling.start or None,
        "--end": sampling.end,
        "--source-fps": sampling.source_fps,
        "--save-animation": animation,
    }
    for name, value in given.items():
        if value is not None:
            raise BadInput(f"{name} is about videos: give one with --video, or leave it out")


def plan(paths: Sequence[Path], sampling: Sampling) -> list[Planned]:
    """Which frames are to be read of each video, with a spinner: finding out may take a while."""
    from prunus.inference.videos import plan_videos

    with busy("looking through " + ", ".join(str(path) for path in paths[:3])):
        return plan_videos(paths, sampling)


def read(planned: Sequence[Planned]) -> list[Excerpt]:
    """The frames, with a bar."""
    with progress("reading frames", sum(len(set(one.chosen.numbers)) for one in planned)) as step:
        return [one.read(step) for one in planned]


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
    from prunus.viz.as_seen import frames_as_seen
    from prunus.viz.film import Film

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


def facts(video: Excerpt, pieces: Sequence[Film]) -> dict[str, Any]:
    """What ``--json`` says of a video."""
    return {
        "source": video.name,
        "seconds": video.length,
        "frames": len(video.frames),
        "fps": video.fps,
        "numbers": list(video.numbers),
        "times": list(video.times),
        "slices": [facts for film in pieces for facts in film.facts()],
    }


def line(video: Excerpt) -> str:
    """Which frames the model saw, in words."""
    from prunus.viz.film import clock

    count, times = len(video.frames), video.times
    rate = f", {video.fps:.3g} per second" if count > 1 else ""
    return (
        f"{count} frame{'s' * (count != 1)}{rate}, {clock(times[0])} to {clock(times[-1])} of "
        f"{clock(video.length)}: {video.name}"
    )


def sheet(video: Excerpt, pieces: Sequence[Film]) -> list[list[Any]]:
    """Rows of panels: every frame, and below what is to be known of all."""
    from prunus.viz.film import sheet_rows

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
