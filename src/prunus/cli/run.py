"""``prunus run``: ask a model about images with pruned visual tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli import filmed
from prunus.cli.asking import Question, quietly
from prunus.cli.console import err, out, print_result, progress, quiet_transformers
from prunus.cli.errors import BadInput
from prunus.cli.folder import ask_about, folder_of
from prunus.cli.options import (
    MOST,
    AsJson,
    BudgetOption,
    Device,
    DType,
    KeepOption,
    MethodOption,
    Model,
    ParamOption,
    meaning_of,
)

if TYPE_CHECKING:
    from prunus.bench.quick import Quick
    from prunus.inference.answer import Answer
    from prunus.method import Method
    from prunus.method.budget import Meaning


def run(
    prompt: Annotated[
        str,
        typer.Option(
            help="The question; <image> and <video> mark where these go (default: in front)."
        ),
    ],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGE...",
            help="Image files, all in one prompt; -: standard input; builtin:0 to builtin:499: "
            "drawn scenes; builtin:cat, builtin:coffee, builtin:rocket: photographs; or one "
            "folder, each image of which is asked about by itself.",
        ),
    ] = None,
    video: filmed.Video = None,
    fps: filmed.Fps = None,
    frames: filmed.Frames = None,
    max_frames: filmed.MaxFrames = None,
    start: filmed.Start = 0.0,
    end: filmed.End = None,
    source_fps: filmed.SourceFps = None,
    model: Model = "tiny-llava",
    method: MethodOption = "clse",
    keep: KeepOption = None,
    budget: BudgetOption = "nominal",
    param: ParamOption = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=MOST, help="Length of the answer.")
    ] = 32,
    save_overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw what was important and what was kept; of a video, every frame of it.",
        ),
    ] = None,
    save_animation: filmed.SaveAnimation = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of a folder: draw such a picture of each image there."),
    ] = None,
    timed: Annotated[
        bool,
        typer.Option(
            "--time",
            help="Time the answer as well, in turn with the unpruned model: a few rounds.",
        ),
    ] = False,
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Ask a model about images and videos, with pruned visual tokens."""
    from prunus.bench.quick import words
    from prunus.builtin import knows_drawings
    from prunus.cli.loading import load_model
    from prunus.cli.targets import check_target
    from prunus.inference.inputs import check_frames
    from prunus.inference.named import build_methods
    from prunus.inference.pictures import is_drawn, open_pictures
    from prunus.inference.sampling import Sampling
    from prunus.io.images import image_files
    from prunus.viz.animation import check_animation, write_animation

    if not images and not video:
        raise BadInput("nothing to look at: name IMAGE files, or give a video with --video")
    sampling = Sampling(fps, frames, start, end, max_frames, source_fps)
    if not video:
        filmed.check_unused(sampling, save_animation)
    one_prompt = {"--video": video, "--save-overlay": save_overlay, "--time": timed}
    folder = folder_of(images or [], output, one_prompt)
    read = [*(images or []), *(video or [])]
    if save_overlay is not None:
        if save_overlay.suffix.lower() != ".png":
            raise BadInput(f"--save-overlay {str(save_overlay)!r}: give a file name in .png")
        check_target("--save-overlay", save_overlay, "the picture", read)
    if save_animation is not None:
        check_animation(save_animation)
        check_target("--save-animation", save_animation, "the animation", read)
    paths = [] if folder is None else image_files([folder])
    pictures = open_pictures(images or []) if folder is None else []
    planned = filmed.plan(video or [], sampling)
    chosen, meaning = build_methods(method, keep, param or []), meaning_of(budget)
    if chosen is None and timed:
        raise BadInput("--method none has nothing to be timed against: name a method")
    if chosen is None and meaning == "true":
        raise BadInput("--method none prunes nothing: leave out --budget, or name a method")
    quiet_transformers()
    network, processor = load_model(model, dtype, device)
    question = Question(model, network, processor, prompt, method, chosen, meaning, max_new_tokens)
    own = [one for name, one in zip(images or [], pictures, strict=False) if not is_drawn(name)]
    note = knows_drawings(model, own) if own or paths else ""
    if note:
        err().print(f"note: {note}", markup=False, soft_wrap=True)
    if folder is not None:
        ask_about(question, paths, output, as_json, note)
        return
    for film in planned:
        check_frames(processor, film.count)
    videos = filmed.read(planned)
    with progress("answering", max_new_tokens) as step, quietly(as_json):
        asked = question.ask(pictures, videos, step)
    result = asked.said
    spent = _times(network, asked.inputs, chosen, result.new_tokens, meaning) if timed else {}
    if save_overlay is not None:
        asked.draw(save_overlay)
    if save_animation is not None:
        write_animation([film for pieces in asked.films for film in pieces], save_animation)
    if as_json:
        facts = asked.facts([str(path) for path in images or []])
        facts["notes"] = [*facts["notes"], *([note] if note else [])]
        facts["overlay"] = None if save_overlay is None else str(save_overlay)
        pairs = zip(videos, asked.films, strict=True)
        facts["videos"] = [filmed.facts(*pair) for pair in pairs]
        facts["animation"] = None if save_animation is None else str(save_animation)
        facts["budget"] = meaning
        facts["time"] = {name: one.facts() for name, one in spent.items()} or None
        print_result(facts)
        return
    console = out()
    console.print(result.text, markup=False, soft_wrap=True)
    console.print()
    console.print(str(result.report), markup=False, soft_wrap=True)
    told = [f"{'video':<16}{filmed.line(one)}" for one in videos] + _what_happened(result)
    if spent:
        heads = ["time", "", ""]
        lines = words(spent["pruned"], spent["dense"])
        told += [f"{head:<16}{line}" for head, line in zip(heads, lines, strict=False)]
    if save_overlay is not None:
        told.append(f"{'picture':<16}{save_overlay}")
    if save_animation is not None:
        told.append(f"{'animation':<16}{save_animation}")
    for line in told:
        console.print(line, markup=False, soft_wrap=True)


def _times(
    network: Any, inputs: Any, chosen: Sequence[Method] | None, tokens: int, meaning: Meaning
) -> dict[str, Quick]:
    """Times of such an answer, "dense" and "pruned"."""
    from prunus.bench.quick import ROUNDS, WARM_UP, quick

    with progress("timing", 2 * (ROUNDS + WARM_UP)) as step, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the answer said it all
        settings = {"dense": (), "pruned": tuple(chosen or ())}
        return quick(network, inputs, settings, max(2, min(tokens, 16)), meaning, step=step)


def _what_happened(result: Answer) -> list[str]:
    """What methods decided about this prompt, and how many visual tokens each layer ran on."""
    from prunus.results.events import by_layers, events_of

    decided = [str(event) for event in events_of(result.trace)]
    heads = ["decided", *[""] * len(decided)]
    lines = [f"{head:<16}{line}" for head, line in zip(heads, decided, strict=False)]
    counts = by_layers(result.report["tokens"]["per_layer"])
    return [*lines, f"{'per layer':<16}{counts} visual tokens"]
