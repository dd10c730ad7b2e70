"""``prunus eval``: accuracy against budget, on the built-in questions or the user's."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.benchmarks import Asked
from prunus.cli.console import err, out, print_result, quiet_transformers
from prunus.cli.errors import BadInput, option
from prunus.cli.options import (
    MOST,
    AsJson,
    BudgetOption,
    Device,
    DType,
    Model,
    OnErrorOption,
    meaning_of,
)
from prunus.errors import PrunusError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from prunus.evaluate.cells import Cell
    from prunus.evaluate.properties import Property
    from prunus.evaluate.runner import Evaluation, Outcome
    from prunus.evaluate.summary import Row
    from prunus.method.budget import Meaning
    from prunus.tasks.sets import EvalSet


def evaluate(
    model: Model = "tiny-llava",
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            "--method",
            metavar="A,B,...",
            help="Methods (clse, a preset clse@released, evoprune+clse) and controls "
            "(ground-truth, blind, other-image); default: all that need nothing trained.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,...",
            help="Budgets: counts or shares of the visual tokens; default 33.3, 22.2, 11.1 %.",
        ),
    ] = None,
    budget: BudgetOption = "nominal",
    seeds: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many seeds of random methods.")
    ] = 3,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="SET|FILE.jsonl",
            help="Built-in questions: scenes, sizes (the same, stretched; default of tiny-qwen), "
            "videos. Or yours: image (path beside the file), question, answer, type per line.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Only the first so many questions.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MOST, help="Questions at a time.")] = 32,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write accuracy.json, accuracy.md and answers.jsonl."),
    ] = None,
    pictures: Annotated[
        int,
        typer.Option(
            min=0, max=MOST, help="Draw what is kept at the last budget for so many questions."
        ),
    ] = 0,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Instead: benchmarks, asked by lmms-eval ('prunus[lmms]'); page and tables as of "
            "`prunus compare`.",
        ),
    ] = None,
    include: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder with tasks of your own, for --tasks."),
    ] = None,
    on_error: OnErrorOption = "stop",
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Accuracy of pruning methods at several budgets, with 95 % intervals, against the dense model.

    Exact match of greedy answers. The dense model runs in the same pass; differences to it are
    paired over questions. Without --data, the built-in questions about drawn scenes are asked.
    """
    from prunus.builtin import check_name
    from prunus.cli.loading import load_model
    from prunus.evaluate.cells import GROUND_TRUTH, RATIOS, default_names, make_cells
    from prunus.evaluate.output import write_results
    from prunus.evaluate.runner import Evaluation
    from prunus.inference.params import parse_keep
    from prunus.io.claim import claim
    from prunus.io.files import make_folder
    from prunus.tasks.faults import Faults
    from prunus.tasks.sets import builtin_set_for, load_set

    if on_error not in ("stop", "skip"):
        raise unknown("--on-error", on_error, ["stop", "skip"])
    if tasks is not None:
        if data is not None or pictures:
            raise BadInput("--tasks brings its own questions: leave out --data and --pictures")
        if methods is None or output is None:
            raise BadInput(
                "--tasks asks whole benchmarks: say which methods (--methods A,B) and where the "
                "results go (--output DIR)"
            )
        check_name(model)
        _benchmarks(
            Asked(
                model,
                listed(tasks, "--tasks"),
                include,
                listed(methods, "--methods"),
                RATIOS if keep is None else [parse_keep(one) for one in listed(keep, "--keep")],
                meaning_of(budget),
                seeds,
                limit,
                batch,
                output,
                on_error == "skip",
                dtype,
                device,
            ),
            as_json,
        )
        return
    if include is not None:
        raise BadInput("--include is about --tasks: name some, or leave it out")
    chosen = builtin_set_for(model) if data is None else str(data)
    faults = Faults("skip" if on_error == "skip" else "stop")
    questions, meaning = load_set(chosen, faults).first(limit), meaning_of(budget)
    names = [name for name in default_names() if questions.has_scenes or name != GROUND_TRUTH]
    if methods is not None:
        names = listed(methods, "--methods")
    if GROUND_TRUTH in names and not questions.has_scenes:
        raise BadInput("ground-truth needs the scenes of the built-in questions: leave it out")
    keeps = RATIOS if keep is None else [parse_keep(text) for text in listed(keep, "--keep")]
    cells = make_cells(names, keeps, range(seeds))
    if pictures and output is None:
        raise BadInput("--pictures needs a folder to write to: add --output DIR")
    if output is not None:
        with option("--output", output):
            make_folder(output)
    # The folder is claimed now, not after minutes of work.
    with nullcontext() if output is None else claim(output):
        quiet_transformers()
        network, processor = load_model(model, dtype, device)
        settings: dict[str, Any] = {
            "model": model,
            "dtype": str(network.dtype).removeprefix("torch."),
            "device": network.device.type,
            "batch": batch,
            "keep": [float(one) for one in keeps],
            "budget": meaning,
            "seeds": seeds,
            "limit": limit,
            "cells": [cell.key for cell in cells],
        }
        evaluation = Evaluation(network, processor, questions, cells, faults, meaning)
        _ask(evaluation, len(cells) * len(questions.queries), batch, output, settings)
        asked, outcomes = evaluation.so_far()
        if faults.found:
            settings["skipped"] = {"questions": len(faults.found), "why": faults.found}
            _say_skipped(faults.found)
        if evaluation.refused:
            settings["refused"] = evaluation.refused
            cells = [cell for cell in cells if cell.key not in evaluation.refused]
        if not outcomes:
            raise BadInput(f"none of the questions can be asked: {faults.found[0]}")
        written: list[Path] = []
        if output is not None:
            written = write_results(output, asked, outcomes, settings)
            if pictures:
                written.append(_draw(network, processor, asked, cells, pictures, output, meaning))
    _show(asked, outcomes, settings, written, as_json)


def _benchmarks(asked: Asked, as_json: bool) -> None:
    from prunus.cli.benchmarks import benchmarks
    from prunus.cli.compare_output import write

    write(benchmarks(asked), asked.output, None, as_json)


def listed(text: str, option: str) -> list[str]:
    """The parts of what was given to ``option``.

    Raises:
        BadInput: an empty one.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise BadInput(f"{option} {text!r}: separate names or numbers by single commas")
    return parts


def _ask(
    evaluation: Evaluation, answers: int, batch: int, output: Path | None, settings: dict[str, Any]
) -> None:
    """Evaluate under a progress bar on standard error; what was answered before something went
    wrong is written to ``output``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    from prunus.evaluate.output import write_results

    console = err()
    columns = (TextColumn("answers"), BarColumn(), MofNCompleteColumn(), Left())
    hidden = not console.is_terminal
    try:
        with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
            task = bars.add_task("answers", total=answers)
            evaluation.run(batch=batch, step=lambda count: bars.advance(task, count))
    except (PrunusError, KeyboardInterrupt) as error:
        asked, outcomes = evaluation.so_far()
        if outcomes and output is not None:
            write_results(output, asked, outcomes, {**settings, "complete": False})
        if not isinstance(error, PrunusError):
            raise
        place = str(output) if output is not None else "nowhere, as there is no --output"
        kept = f"; the answers to {len(asked.queries)} questions before it are in {place}"
        raise BadInput(f"{error}{kept if outcomes else ''} (--on-error skip goes on)") from error


def _say_skipped(found: Sequence[str]) -> None:
    from prunus.tasks.faults import told

    console = err()
    for line in (f"skipped {len(found)} questions:", *told(found)):
        console.print(line, markup=False, soft_wrap=True)


def _draw(
    network: Any,
    processor: Any,
    questions: EvalSet,
    cells: Sequence[Cell],
    count: int,
    folder: Path,
    budget: Meaning,
) -> Path:
    """Draw every method at the last budget, one seed each, for questions spread evenly."""
    from prunus.evaluate.pictures import draw_choices

    least = [cell.keep for cell in cells if cell.keep is not None][-1:]
    chosen = [
        cell
        for cell in cells
        if cell.name == "dense"
        or (cell.keep in least and cell.seed in (None, 0))
        or (cell.keep is None and cell.prunes)
    ]
    total = len(questions.queries)
    numbers = [total * at // count for at in range(min(count, total))]
    return draw_choices(
        network, processor, questions, numbers, chosen, folder / "kept.png", budget=budget
    )


def _show(
    questions: EvalSet,
    outcomes: Sequence[Outcome],
    settings: dict[str, Any],
    written: Sequence[Path],
    as_json: bool,
) -> None:
    from prunus.evaluate.output import results
    from prunus.evaluate.properties import discrimination
    from prunus.evaluate.runner import IDLE
    from prunus.evaluate.summary import summarise

    if as_json:
        found = results(questions, outcomes, settings)
        print_result({**found, "files": [str(path) for path in written]})
        return
    rows = summarise(questions, outcomes)
    console = out()
    console.print(_table(rows, len(questions.queries), settings["model"]))
    console.print(f"{_LEGEND}\n", markup=False, style="dim")
    for one in discrimination(questions, rows):
        console.print(_line(one), markup=False, soft_wrap=True)
    for row in rows:
        if idle := row.figures.get(IDLE):
            words = f"{row.name} found nothing to do in {idle:.1%} of the questions"
            console.print(f"NOTE: {words}: their tokens all stayed", markup=False, soft_wrap=True)
    for key, why in settings.get("refused", {}).items():
        console.print(f"refused: {key}: {why}", markup=False, soft_wrap=True)
    for path in written:
        console.print(f"written: {path}", markup=False, soft_wrap=True)


def _table(rows: Sequence[Row], count: int, model: str) -> Table:
    from rich.table import Table

    # no frame: the table must fit into 80 columns
    table = Table(
        title=f"{model}, {count} questions", title_justify="left", box=None, padding=(0, 1, 0, 0)
    )
    for column in (
        "method",
        "asked",
        "true",
        "FLOPs",
        "accuracy % [95 %]",
        "to dense",
        "R→W",
        "W→R",
    ):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    budget: Any = None
    for row in rows:
        if row.keep != budget:
            table.add_row()
            budget = row.keep
        value, low, high = (100 * number for number in row.accuracy)
        cost = ["", ""]
        if row.figures:
            share = row.figures.get("llm_flops_ratio")  # None where it was not counted
            cost = [f"{row.figures['average']:.0f}", "" if share is None else f"{share:.0%}"]
        change = ["", "", ""]
        if row.difference is not None and row.changed is not None:
            lost, won = row.changed
            change = [f"{100 * row.difference.value:+.1f}", f"{lost:.0f}", f"{won:.0f}"]
        asked = str(row.nominal or ("own" if row.figures else ""))
        accuracy = f"{value:.1f} \\[{low:.1f}, {high:.1f}]"
        table.add_row(row.name, asked, *cost, accuracy, *change)
    return table


_LEGEND = (
    "asked, true: visual tokens asked for, and their mean over decoder layers; FLOPs: of the "
    "language model against dense; R→W, W→R: answers that became wrong, and right"
)


def _line(one: Property) -> str:
    verdict = "met" if one.met else "NOT MET"
    return f"{one.name}: {one.measured} (wanted: {one.wanted}): {verdict}"
