"""``prunus batch``: a file of images and prompts, answered by several workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli import filmed
from prunus.cli.console import err, out, print_result, quiet_transformers
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
from prunus.errors import unknown

ENGINES = ("transformers", "vllm")
_EVERY = 30.0  # seconds between lines, where there is no terminal


def batch(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON lines or Parquet: image or video (path beside the file; of Parquet also "
            "bytes), prompt, and an id if there is one.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Answers, refused rows and settings; goes on from there."),
    ],
    model: Model = "tiny-llava",
    method: MethodOption = "clse",
    keep: KeepOption = None,
    budget: BudgetOption = "nominal",
    param: ParamOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=MOST, help="Length of an answer.")] = 32,
    engine: Annotated[
        str,
        typer.Option(
            metavar="transformers|vllm",
            help="vllm: vLLM's engine, for methods that it serves (docs/batch.md).",
        ),
    ] = "transformers",
    vllm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="With --engine vllm, an argument of vllm.LLM: max_model_len=4096; repeatable.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=10_000, help="Workers, each with a model of its own.")
    ] = 1,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            max=10_000,
            help="Rows at a time in each worker; default: 8; with vLLM 64.",
        ),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Cores for each worker; default: those of this machine by --workers; 1 on a "
            "cluster.",
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0, max=64, help="GPUs for each worker (0.5: two share one); default: 1 if any."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster (auto, HOST:PORT, ray://...); default: this machine."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="parquet|jsonl", help="Of the answers.")
    ] = "parquet",
    part_rows: Annotated[
        int, typer.Option(min=1, max=MOST, help="Rows in each file of answers, at most.")
    ] = 1000,
    refused_again: Annotated[
        bool, typer.Option("--retry-refused", help="Ask what was refused before again.")
    ] = False,
    fps: filmed.Fps = None,
    frames: filmed.Frames = None,
    max_frames: filmed.MaxFrames = None,
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Answer a file of images and prompts with pruned visual tokens, on Ray Data or by vLLM.

    Each row is answered once: the same command goes on where it was stopped, and a worker that dies
    loses nothing. Rows that cannot be asked go to refused.jsonl with their reason.
    """
    from prunus.batch.answerer import Job
    from prunus.batch.ledger import FORMATS
    from prunus.batch.pool import Workers
    from prunus.batch.run import Options, run
    from prunus.batch.with_vllm import Engine, check
    from prunus.builtin import check_name
    from prunus.cli.loading import check_device
    from prunus.inference.named import build_methods
    from prunus.inference.sampling import Sampling

    kind = next((one for one in FORMATS if one == form), None)
    if kind is None:
        raise unknown("--format", form, FORMATS)
    chosen, meaning = build_methods(method, keep, param or []), meaning_of(budget)
    if chosen is None and meaning == "true":
        raise BadInput("--method none prunes nothing: leave out --budget, or name a method")
    sampling = Sampling(fps, frames, most=max_frames)
    check_name(model)
    by_vllm = _is_vllm(engine, vllm, workers > 1, cpus, gpus, address, device != "auto")
    place = check_device(device) if address is None else device
    name = str(Path(model).resolve()) if Path(model).is_dir() else model
    job = Job(
        name,
        _anywhere(method),
        keep,
        tuple(param or ()),
        meaning,
        max_new_tokens,
        dtype,
        device if address is not None else place,
        sampling,
    )
    share = 1 if address is not None else max(1, (os.cpu_count() or 1) // workers)
    some = 1.0 if place.startswith("cuda") and address is None else 0.0
    pool: Workers | Engine
    if by_vllm:
        pool = Engine(batch_size or 64, tuple(vllm or ()))
        check(job, pool)
    else:
        pool = Workers(workers, cpus or share, some if gpus is None else gpus, address)
    options = Options(batch_size or 8, kind, part_rows, refused_again)
    quiet_transformers()
    with _told() as (begun, step):
        done = run(job, data, output, pool, options, begun, step)
    if as_json:
        print_result(
            {
                "rows": done.rows,
                "answered": done.answered,
                "refused": done.refused,
                "now": done.now,
                "seconds": done.seconds,
                "output": str(output),
            }
        )
        return
    console = out()
    console.print(
        f"{done.rows} rows: {done.answered} answered, {done.refused} refused; {done.now} of them "
        f"now, in {done.seconds:.1f} s",
        markup=False,
        soft_wrap=True,
    )
    console.print(f"written: {output}", markup=False, soft_wrap=True)
    if done.refused:
        console.print(f"refused: {output / 'refused.jsonl'}", markup=False, soft_wrap=True)


def _is_vllm(
    engine: str,
    arguments: list[str] | None,
    several: bool,
    cpus: int | None,
    gpus: float | None,
    address: str | None,
    placed: bool,
) -> bool:
    """Whether vLLM answers.

    Raises:
        BadInput: options of the one are given with the other.
    """
    if engine not in ENGINES:
        raise unknown("--engine", engine, ENGINES)
    if engine == "transformers":
        if arguments:
            raise BadInput(f"--vllm {arguments[0]} says something to vLLM: give --engine vllm")
        return False
    of_workers = {
        "--workers": several,
        "--cpus": cpus is not None,
        "--gpus": gpus is not None,
        "--address": address is not None,
        "--device": placed,
    }
    if given := [name for name, there in of_workers.items() if there]:
        raise BadInput(
            f"{given[0]} is for workers on Ray: with --engine vllm one engine answers, on the "
            "device that vLLM was built for; leave it out"
        )
    return True


def _anywhere(method: str) -> str:
    """``path/to/file.py:Class`` with its whole path: workers run in other folders."""
    file, colon, name = method.partition(".py:")
    return f"{Path(f'{file}.py').resolve()}:{name}" if colon and "+" not in method else method


@contextmanager
def _told() -> Iterator[tuple[Callable[[int, int], None], Callable[[int, int], None]]]:
    """Progress on standard error: a bar on a terminal, or a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
    began = last = time.monotonic()
    total = before = 0
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task("rows", total=None)

        def begun(rows: int, done: int) -> None:
            nonlocal total, before
            total, before = rows, done
            bars.update(task, total=rows, completed=done)
            if done:
                console.print(f"{done} of {rows} rows are done already", markup=False)

        def step(answered: int, refused: int) -> None:
            nonlocal last
            bars.update(task, completed=answered + refused)
            now = time.monotonic()
            if console.is_terminal or now - last < _EVERY:
                return
            last = now
            rate = (answered + refused - before) / (now - began)
            console.print(
                f"{answered + refused} of {total} rows, {refused} refused, {rate:.2f} rows/s",
                markup=False,
            )

        yield begun, step
