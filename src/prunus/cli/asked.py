"""What ``prunus calibrate`` asks a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli.errors import BadInput
from prunus.cli.options import MOST

if TYPE_CHECKING:
    from prunus.tasks.sets import EvalSet

Data = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl",
        help="Your questions: image (path beside the file), question, answer, type per line; "
        "default: drawn scenes, neither trained on nor those that `prunus eval` asks about.",
    ),
]
Pictures = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="Instead: an image; repeatable.")
]
Prompts = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="What to ask about each image; repeatable.")
]
Batch = Annotated[int, typer.Option(min=1, max=MOST, help="Prompts at a time.")]


def asked(
    data: Path | None, images: Sequence[Path], prompts: Sequence[str], limit: int
) -> EvalSet | None:
    """At most ``limit`` questions: those of the file ``data``, or each of ``prompts`` about each of
    ``images``; None where nothing is given.

    Raises:
        BadInput: both are given, one of images and prompts is missing, or a prompt is no question.
        PrunusError: an unreadable file.
    """
    from prunus.analyse.questions import every_prompt, spread
    from prunus.inference.prompts import PLACEHOLDERS
    from prunus.io.images import open_images
    from prunus.tasks.sets import load_file

    if data is not None and (images or prompts):
        raise BadInput("--data brings its own images and questions: leave out --image and --prompt")
    if bool(images) != bool(prompts):
        raise BadInput("--image and --prompt belong together: give both, or neither of them")
    if data is not None:
        return spread(load_file(data), limit)
    if not images:
        return None
    for prompt in prompts:
        if not prompt.strip() or any(place in prompt for place in PLACEHOLDERS.values()):
            raise BadInput(f"--prompt {prompt!r}: give a question, without <image> and <video>")
    return spread(every_prompt(open_images(images), prompts), limit)
