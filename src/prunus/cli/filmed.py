"""Videos of ``prunus run``: options, the frames that are read, what is told and drawn of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import busy, progress
from prunus.cli.errors import BadInput
from prunus.cli.options import MOST

if TYPE_CHECKING:
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

#: Inches of a side of a frame on a contact sheet.
SIDE = 1.6


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
