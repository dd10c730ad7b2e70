"""``prunus run``: ask a model about images with pruned visual tokens."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import out, print_json, progress, quiet_transformers
from prunus.cli.errors import BadInput
from prunus.cli.options import MOST, AsJson, BudgetOption, Device, DType, Model, meaning_of

if TYPE_CHECKING:
    from PIL import Image

    from prunus.inference.answer import Answer
    from prunus.method import Method


def run(
    prompt: Annotated[
        str,
        typer.Option(
            help="The question; <image> and <video> mark where these go (default: in front)."
        ),
    ],
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGE...", help="Image files.")
    ] = None,
    video: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A video file; or, repeated, image files that are the frames of one video.",
        ),
    ] = None,
    fps: Annotated[
        float, typer.Option(min=0.01, max=1e4, help="Frames per second to take from a video.")
    ] = 2.0,
    max_frames: Annotated[
        int,
        typer.Option(
            min=1, max=MOST, help="Most frames of a video file; longer ones get fewer per s."
        ),
    ] = 64,
    model: Model = "tiny-llava",
    method: Annotated[
        str,
        typer.Option(
            help="See `prunus methods`; clse@released: with a preset; evoprune+clse: one behind "
            "the other; none: unmodified."
        ),
    ] = "clse",
    keep: Annotated[
        str | None,
        typer.Option(
            help="Visual tokens per image or video: 64 is a count, 0.333 a share; 0.5,64: of each."
        ),
    ] = None,
    budget: BudgetOption = "nominal",
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the method (of several: clse.cutoff=0.2); repeatable.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=MOST, help="Length of the answer.")
    ] = 32,
    save_overlay: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw what was important and what was kept."),
    ] = None,
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Ask a model about images and videos, with pruned visual tokens."""
    from prunus.cli.loading import load_model
    from prunus.families import family_of
    from prunus.inference.answer import answer
    from prunus.inference.inputs import placed, process
    from prunus.inference.named import build_methods
    from prunus.inference.prompts import arrange, build_prompt
    from prunus.inference.videos import open_videos
    from prunus.io.images import open_images

    if not math.isfinite(fps):
        raise BadInput(f"--fps {fps}: give a number of frames for each second")
    if not images and not video:
        raise BadInput("nothing to look at: name IMAGE files, or give a video with --video")
    pictures = open_images(images or [])
    videos = open_videos(video or [], fps, max_frames)
    chosen, meaning = build_methods(method, keep, param or []), meaning_of(budget)
    if chosen is None and meaning == "true":
        raise BadInput("--method none prunes nothing: leave out --budget, or name a method")
    if save_overlay is not None and save_overlay.suffix.lower() != ".png":
        raise BadInput(f"--save-overlay {str(save_overlay)!r}: give a file name in .png")
    quiet_transformers()
    network, processor = load_model(model, dtype, device)
    text = build_prompt(processor, prompt, len(pictures), len(videos))
    encoded = process(processor, text, pictures, videos, family_of(network))
    inputs = placed(encoded, network.device, network.dtype)
    with progress("answering", max_new_tokens) as step:
        with warnings.catch_warnings():
            if not as_json:  # the report has a line about it
                warnings.filterwarnings("ignore", "prunus: .* found nothing to do")
            result = answer(network, processor, inputs, chosen, max_new_tokens, step, meaning)
    if save_overlay is not None:
        queues = {
            "image": iter([[picture] for picture in pictures]),
            "video": iter([film.frames for film in videos]),
        }
        order = arrange(prompt, len(pictures), len(videos))
        _draw(save_overlay, processor, inputs, [next(queues[kind]) for kind in order], result)
    if as_json:
        facts = _as_dict(result, model, method, chosen, images or [], prompt, save_overlay)
        facts["videos"] = [{"frames": len(film.frames), "fps": film.fps} for film in videos]
        facts["budget"] = meaning
        print_json(facts)
        return
    console = out()
    console.print(result.text, markup=False, soft_wrap=True)
    console.print()
    console.print(str(result.report), markup=False, soft_wrap=True)
    for line in _what_happened(result):
        console.print(line, markup=False, soft_wrap=True)
    if save_overlay is not None:
        console.print(f"picture         {save_overlay}", markup=False, soft_wrap=True)


def _draw(
    path: Path,
    processor: Any,
    inputs: Any,
    shown: Sequence[Sequence[Image.Image]],
    result: Answer,
) -> None:
    from prunus.cli.seen import pictures_as_seen
    from prunus.viz import Strip, draw_panels, trace_panels

    seen = pictures_as_seen(processor, inputs, shown, result.grids)
    panels = trace_panels(seen, result.trace)
    strip = Strip.of(result.trace, result.report["tokens"]["per_layer"])
    draw_panels(panels, path, title=result.text[:100], strip=strip)


def _what_happened(result: Answer) -> list[str]:
    """What methods decided about this prompt, and how many visual tokens each layer ran on."""
    from prunus.results.events import by_layers, events_of

    decided = [str(event) for event in events_of(result.trace)]
    heads = ["decided", *[""] * len(decided)]
    lines = [f"{head:<16}{line}" for head, line in zip(heads, decided, strict=False)]
    counts = by_layers(result.report["tokens"]["per_layer"])
    return [*lines, f"{'per layer':<16}{counts} visual tokens"]


def _as_dict(
    result: Answer,
    model: str,
    name: str,
    methods: Sequence[Method] | None,
    images: Sequence[Path],
    prompt: str,
    overlay: Path | None,
) -> dict[str, Any]:
    from prunus.results.events import events_of

    report = result.report
    params = {one.name: _params(one) for one in methods or ()}
    return {
        "answer": result.text,
        "model": model,
        "method": name,
        "params": next(iter(params.values()), {}) if len(params) < 2 else params,
        "prompt": prompt,
        "images": [str(path) for path in images],
        "new_tokens": result.new_tokens,
        "pruned": report["pruned"],
        "tokens": {k: _whole(v) for k, v in report["tokens"].items() if k != "per_layer"},
        "per_layer": [_whole(count) for count in report["tokens"]["per_layer"]],
        "stages": report["stages"],
        "events": [event.facts() for event in events_of(result.trace)],
        "idle": report["idle"],
        "flops": report["flops"],
        "kv_bytes": report["kv_bytes"],
        "visual_attention": report["visual_attention"],
        "published": report["published"],
        "overlay": None if overlay is None else str(overlay),
    }


def _whole(count: float | None) -> float | int | None:
    """A count as an integer where it is one: the report holds means over samples."""
    return int(count) if count is not None and count == int(count) else count


def _params(method: Method) -> dict[str, Any]:
    fields = dataclasses.asdict(method)  # type: ignore[call-overload]
    return {key: _plain(value) for key, value in fields.items()}


def _plain(value: Any) -> Any:
    """``value`` if JSON knows it, its text otherwise."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
