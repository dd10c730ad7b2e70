"""``prunus analyse``: what happens to visual tokens inside a model, as tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import err, out, print_result, quiet_transformers
from prunus.cli.errors import BadInput, option
from prunus.cli.options import MOST, AsJson, Device, DType, Model
from prunus.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prunus.analyse import Context, Result
    from prunus.tasks.sets import EvalSet

_DEFAULT_LIMIT = 70


def analyse(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHAT]...",
            help="knockout, sinks, fusion, spectral, sweep; default: all of them.",
        ),
    ] = None,
    model: Model = "tiny-llava",
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Where tables, pictures and index.md go.")
    ] = Path("out/analysis"),
    limit: Annotated[
        int,
        typer.Option(
            min=1, max=MOST, help="At most so many questions, spread over types and images."
        ),
    ] = _DEFAULT_LIMIT,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="SET|FILE.jsonl",
            help="Built-in questions: scenes, sizes (the same, stretched; default of tiny-qwen), "
            "videos. Or yours: image (path beside the file), question, answer, type per line.",
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Your image or a folder of them, with --prompt; can be repeated."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="Asked of every --image; repeat for several."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MOST, help="Prompts at a time.")] = 8,
    seed: Annotated[
        int, typer.Option(min=0, max=MOST, help="Which questions, and random choices.")
    ] = 0,
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Attention knock-out, sinks, fusion, spectral evolution and CLSE's ablations of a model.

    Asks the built-in questions, yours (--data), or every --prompt about every --image; where no
    answers are known, agreement with the dense model takes the place of accuracy.
    """
    from prunus.analyse import ANALYSES, Context, spread, write, write_index
    from prunus.analyse.plots import check_matplotlib
    from prunus.cli.loading import load_model
    from prunus.io.claim import claim
    from prunus.io.files import make_folder

    names = what or list(ANALYSES)
    for name in names:
        if name not in ANALYSES:
            raise unknown("analysis", name, list(ANALYSES))
    if len(set(names)) < len(names):
        raise BadInput("an analysis is named twice")
    pool = _questions(model, data, image or [], prompt or [])
    check_matplotlib()
    with option("--output", output):
        make_folder(output)
    with claim(output):  # now, not after minutes of work
        quiet_transformers()
        network, processor = load_model(model, dtype, device)
        asked = spread(pool, limit, seed)
        context = Context(network, processor, asked, pool, batch=batch, seed=seed)
        written: list[Path] = []

        def keep(result: Result) -> None:  # as soon as it is there: the others take minutes
            written.extend(write(output, result, _settings(context, model)))

        results = _with_bar(context, names, keep)
        settings = _settings(context, model)
        written.append(write_index(output, results, _title(settings)))
    _show(results, settings, written, as_json)


def _questions(
    model: str, data: Path | None, images: Sequence[Path], prompts: Sequence[str]
) -> EvalSet:
    from prunus.analyse import every_prompt
    from prunus.io.images import image_files, open_images
    from prunus.tasks.sets import builtin_set_for, load_set

    if data is not None and (images or prompts):
        raise BadInput("give either --data or --image with --prompt, not both")
    if bool(images) != bool(prompts):
        missing = "--prompt" if images else "--image"
        raise BadInput(f"--image and --prompt belong together: add {missing}")
    if any(not prompt.strip() for prompt in prompts):
        raise BadInput("a prompt is empty: ask something with --prompt")
    if images:
        return every_prompt(open_images(image_files(images)), prompts)
    chosen = builtin_set_for(model) if data is None else str(data)
    return load_set(chosen)


def _with_bar(
    context: Context, names: Sequence[str], done: Callable[[Result], None]
) -> list[Result]:
    """Run the analyses under a progress bar on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    from prunus.analyse.runner import analyse, total_work

    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        task = bars.add_task("prompts", total=total_work(context, names))
        return analyse(context, names, lambda count: bars.advance(task, count), done)


def _settings(context: Context, model: str) -> dict[str, Any]:
    """What the numbers were measured with, and how many."""
    from prunus.analyse.measure import DENSE, measure, row
    from prunus.evaluate.output import versions

    dense = row(context, measure(context, DENSE, lambda count: None))
    name = context.measure_name
    return {
        "model": model,
        "layers": context.depth,
        "dtype": str(context.model.dtype).removeprefix("torch."),
        "device": context.model.device.type,
        "set": context.data.name,
        "questions": len(context.data.queries),
        context.things: len(set(context.groups.tolist())),
        "seed": context.seed,
        "batch": context.batch,
        "measure": name,
        "dense": [dense[name], dense[f"{name}_low"], dense[f"{name}_high"]],
        "versions": versions(),
    }


def _title(settings: dict[str, Any]) -> str:
    value, low, high = (100 * share for share in settings["dense"])
    things = "videos" if "videos" in settings else "images"
    measured = f"dense accuracy {value:.1f} % [{low:.1f}, {high:.1f}]"
    if settings["measure"] == "agreement":
        measured = "true answers unknown, so agreement with the dense model's answers is measured"
    return (
        f"{settings['model']} ({settings['layers']} decoder layers, {settings['dtype']}, "
        f"{settings['device']}): {settings['questions']} questions about {settings[things]} "
        f'{things} of "{settings["set"]}"; {measured}. Intervals are 95 %: Wilson\'s for shares of '
        f"answers, paired over {things} for differences, a bootstrap over {things} for everything "
        "else."
    )


def _show(
    results: Sequence[Result], settings: dict[str, Any], written: Sequence[Path], as_json: bool
) -> None:
    if as_json:
        from prunus.analyse.result import plain

        analyses = {result.name: result.as_dict() for result in results}
        files = [str(path) for path in written]
        print_result({"settings": plain(settings), "analyses": analyses, "files": files})
        return
    console = out()
    console.print(_title(settings), markup=False, soft_wrap=True)
    for result in results:
        console.print(f"\n{result.title}", markup=False, style="bold")
        for fact in result.facts:
            console.print(f"* {fact}", markup=False, soft_wrap=True)
        for note in result.notes:
            console.print(f"* left out: {note}", markup=False, soft_wrap=True)
    console.print()
    for path in written:
        console.print(f"written: {path}", markup=False, soft_wrap=True)
    for result in results:
        if result.verdict is not None:
            console.print(
                f"\nVerdict: {result.verdict.text}", markup=False, style="bold", soft_wrap=True
            )
