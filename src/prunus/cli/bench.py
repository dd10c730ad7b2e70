"""``prunus bench``: where time and memory go, against the dense model and against oracles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli import typed
from prunus.cli.console import err, out, print_result, quiet_transformers
from prunus.cli.errors import BadInput, option
from prunus.cli.options import MOST, AsJson, BudgetOption, Device, meaning_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunus.bench.plan import Plan
    from prunus.bench.report import Bench

_NO_GRAPHS = (
    "--cuda-graphs: a CUDA graph replays fixed addresses and lengths. transformers offers that "
    "with a static cache, which cannot hold layers of different lengths, so that prunus refuses "
    "it; leave it out, or try --compile"
)


def bench(
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What is timed where options do not say it: cpu; or beside what papers printed: "
            "clse-5-image, clse-5-video, stepwise-3, evoprune-video, visipruner.",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A real configuration with random weights (times do not depend on them): "
            "llava-1.5-7b, llava-1.5-13b, llava-next-7b, qwen2.5-vl-7b, qwen3-vl-8b, internvl3-8b, "
            "video-llava-7b, llava-onevision-7b.",
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Widths and depths of the shape times this, 0 to 1, for small machines."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Instead: a built-in name, local folder or Hugging Face id."),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The picture that --model is asked about.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Methods, presets, compositions; the dense model is always there.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Visual tokens for methods that take a number: 64, or a share 0.111."),
    ] = None,
    budget: BudgetOption = "nominal",
    batch: Annotated[
        str, typer.Option(metavar="N,N,...", help="Prompts at a time; each is a case of its own.")
    ] = "1",
    output_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Lengths of answers. The longest is generated; the others are its beginnings.",
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Frames of the video of a shape for videos.")
    ] = None,
    words: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Text tokens of a shape's prompt; default 60."),
    ] = None,
    attention: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="sdpa, eager, flash_attention_2 ...; each is a case of its own.",
        ),
    ] = "sdpa",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16; auto: bfloat16 on a GPU, else float32.")
    ] = "auto",
    device: Device = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the decoder layers with torch.compile.")
    ] = False,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Refused, with the reason.", hidden=True)
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(min=2, max=MOST, help="How often all is timed in turn; more on a GPU."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write bench.json, bench.md and bench.png."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time the stages of a prompt, its tokens and its memory, pruned against dense.

    The dense model, every method, the same tokens without choosing (told), and a plain loop over
    the decoder layers (bare) take turns in one run: medians, and quartiles of the ratios of each
    round.
    """
    from prunus.bench.output import check_output, write_bench
    from prunus.bench.plan import make_plan, run_plan

    if cuda_graphs:
        raise BadInput(_NO_GRAPHS)
    plan = make_plan(
        preset=preset,
        shape=shape,
        scale=scale,
        model=model,
        image=image,
        methods=None if methods is None else _listed(methods, "--methods"),
        keep=keep,
        budget=meaning_of(budget),
        batches=_numbers(batch, "--batch"),
        tokens=None if output_tokens is None else _numbers(output_tokens, "--output-tokens"),
        frames=frames,
        words=words,
        attentions=_listed(attention, "--attention"),
        dtype=dtype,
        device=_device(device),
        compiled=compiled,
        rounds=rounds,
    )
    if output is not None:
        with option("--output", output):
            check_output(output)
    quiet_transformers()
    found = _run(plan, run_plan)
    written: list[Path] = []
    if output is not None:
        with option("--output", output):
            written = write_bench(output, found)
    if as_json:
        print_result({**found, "files": [str(path) for path in written]})
        return
    _show(found, written)


def _run(plan: Plan, run_plan: Any) -> Bench:
    """Time under a bar on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        task = bars.add_task("building the model", total=None)

        def step(name: str, done: int, total: int) -> None:
            bars.update(task, description=name, completed=done, total=total)

        found: Bench = run_plan(plan, typed.command(), step)
        return found


def _listed(text: str, name: str) -> list[str]:
    from prunus.cli.eval import listed

    return listed(text, name)


def _numbers(text: str, name: str) -> list[int]:
    found = []
    for part in _listed(text, name):
        if not part.isdecimal() or not 0 < int(part) <= MOST:
            raise BadInput(f"{name} {text!r}: give whole numbers from 1, separated by commas")
        found.append(int(part))
    return found


def _device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _show(found: Bench, written: Sequence[Path]) -> None:
    from prunus.bench import table as told

    console = out()

    def say(text: str = "", **style: Any) -> None:
        console.print(text, markup=False, soft_wrap=True, **style)

    say(told.made_line(found["made"]))
    for case in found["cases"]:
        say()
        say(told.title(case), style="bold")
        for name, head, rows in told.tables(case):
            say()
            say(name)
            say(told.aligned(head, rows))
        say()
        for remark in told.remarks(case):
            say(remark)
    for table in found["published"]:
        say()
        say(f"printed elsewhere: {table['title']}", style="bold")
        say(told.aligned(told.PAPER_COLUMNS, told.paper_lines(table)))
        for remark in told.paper_remarks(table):
            say(remark)
    for note in found["notes"]:
        say(note)
    for path in written:
        say(f"written: {path}")
