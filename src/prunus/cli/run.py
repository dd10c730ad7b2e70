"""``prunus run``: ask a model about images with pruned visual tokens."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli import filmed
from prunus.cli.console import out, print_result, progress, quiet_transformers
from prunus.cli.errors import BadInput
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
    from PIL import Image

    from prunus.bench.quick import Quick
    from prunus.inference.answer import Answer
    from prunus.method import Method
    from prunus.method.budget import Meaning
    from prunus.viz import Panel


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
    from prunus.cli.loading import load_model
    from prunus.cli.targets import check_target
    from prunus.families import family_of
    from prunus.inference.answer import answer
    from prunus.inference.inputs import check_frames, placed, process
    from prunus.inference.named import build_methods
    from prunus.inference.prompts import arrange, build_prompt
    from prunus.inference.sampling import Sampling
    from prunus.io.images import open_images
    from prunus.viz.animation import check_animation, write_animation

    if not images and not video:
        raise BadInput("nothing to look at: name IMAGE files, or give a video with --video")
    sampling = Sampling(fps, frames, start, end, max_frames, source_fps)
    if not video:
        filmed.check_unused(sampling, save_animation)
    if save_overlay is not None:
        if save_overlay.suffix.lower() != ".png":
            raise BadInput(f"--save-overlay {str(save_overlay)!r}: give a file name in .png")
        check_target(
            "--save-overlay", save_overlay, "the picture", [*(images or []), *(video or [])]
        )
    if save_animation is not None:
        check_animation(save_animation)
        check_target(
            "--save-animation", save_animation, "the animation", [*(images or []), *(video or [])]
        )
    pictures = open_images(images or [])
    planned = filmed.plan(video or [], sampling)
    chosen, meaning = build_methods(method, keep, param or []), meaning_of(budget)
    if chosen is None and timed:
        raise BadInput("--method none has nothing to be timed against: name a method")
    if chosen is None and meaning == "true":
        raise BadInput("--method none prunes nothing: leave out --budget, or name a method")
    quiet_transformers()
    network, processor = load_model(model, dtype, device)
    text = build_prompt(processor, prompt, len(pictures), len(planned))
    for one in planned:
        check_frames(processor, one.count)
    videos = filmed.read(planned)
    encoded = process(processor, text, pictures, videos, family_of(network))
    inputs = placed(encoded, network.device, network.dtype)
    with progress("answering", max_new_tokens) as step:
        with warnings.catch_warnings():
            if not as_json:  # the report has a line about it
                warnings.filterwarnings("ignore", "prunus: .* found nothing to do")
            result = answer(network, processor, inputs, chosen, max_new_tokens, step, meaning)
    spent = _times(network, inputs, chosen, result.new_tokens, meaning) if timed else {}
    order = arrange(prompt, len(pictures), len(videos))
    films = filmed.films(videos, order, result, processor, encoded)
    if save_overlay is not None:
        sheets = [row for pair in zip(videos, films, strict=True) for row in filmed.sheet(*pair)]
        counts = [len(video.frames) for video in videos]
        kinds = [order[place] for place in filmed.owners(order, counts, result.grids)]
        _draw(save_overlay, processor, inputs, pictures, kinds, sheets, result)
    if save_animation is not None:
        write_animation([film for pieces in films for film in pieces], save_animation)
    if as_json:
        facts = _as_dict(result, model, method, chosen, images or [], prompt, save_overlay)
        facts["videos"] = [filmed.facts(*pair) for pair in zip(videos, films, strict=True)]
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


def _draw(
    path: Path,
    processor: Any,
    inputs: Any,
    pictures: Sequence[Image.Image],
    kinds: Sequence[str],
    sheets: Sequence[Sequence[Panel]],
    result: Answer,
) -> None:
    """Stages of the images in rows of panels, and the contact ``sheets`` of videos below."""
    from prunus.viz import Strip, draw_panels, fold, trace_panels
    from prunus.viz.as_seen import pictures_as_seen

    grids = [grid for kind, grid in zip(kinds, result.grids, strict=True) if kind == "image"]
    seen = iter(pictures_as_seen(processor, inputs, [[one] for one in pictures], grids))
    shown = [next(seen) if kind == "image" else [] for kind in kinds]
    stages = [piece for row in trace_panels(shown, result.trace) for piece in fold(row)]
    panels = [*stages, *sheets]
    strip = Strip.of(result.trace, result.report["tokens"]["per_layer"])
    size = 2.6 if pictures else filmed.SIDE
    draw_panels(panels, path, title=result.text[:100], size=size, strip=strip)


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
    from prunus.inference.named import as_spelled
    from prunus.results.events import events_of

    report = result.report
    params = {one.name: _params(one) for one in methods or ()}
    return {
        "answer": result.text,
        "model": model,
        "method": as_spelled(name),
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
        "notes": report["notes"],
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
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)
