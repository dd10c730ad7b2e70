"""``prunus reproduce``: a table of a paper, measured again, published beside measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli import typed
from prunus.cli.console import err, out, print_json, print_result, quiet_transformers
from prunus.cli.errors import BadInput, option
from prunus.cli.options import MOST, AsJson, Device, DType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunus.reproduce.judge import Judge
    from prunus.reproduce.plan import Plan
    from prunus.reproduce.recipe import Arm, Recipe
    from prunus.reproduce.result import Line, Reproduction

#: Questions of a set that are asked with --small, unless --limit says otherwise.
_FEW = 100
#: Commands that are printed one by one.
_MOST_COMMANDS = 3


def reproduce(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Which table: see --list.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the tables.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would run, what has to be downloaded, and what cannot be."
        ),
    ] = False,
    small: Annotated[
        bool,
        typer.Option(
            "--small",
            help="The whole way with a built-in model and built-in questions: other numbers, no "
            "download.",
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="PATH|NAME", help="Weights that are there, in place of the paper's."),
    ] = None,
    use: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PUBLISHED=METHOD",
            help="Another method for a published one: StepPrune=stepwise:selector=DIR; repeatable.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help=f"Only the first so many questions; --small: {_FEW}."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where results and measurements go; default: reproduced/NAME."
        ),
    ] = None,
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Measure a table of a paper again: published beside measured.

    Each number is stored as it comes: Ctrl-C, and the same command later, go on where it was.
    Accuracies come from lmms-eval, costs from sizes and token counts.
    """
    if listed:
        if name is not None or dry_run or small:
            raise BadInput("--list stands alone: prunus reproduce --list")
        _list(as_json)
        return
    if name is None:
        raise BadInput("which table? Name one of `prunus reproduce --list`")
    if dry_run and small:
        raise BadInput("--dry-run or --small: choose one (--small downloads nothing)")
    if small and model is not None:
        raise BadInput("--small brings its own model: leave out --model")
    from prunus.reproduce.plan import make_plan
    from prunus.reproduce.recipe import find_recipe, with_methods

    recipe = with_methods(find_recipe(name), use or [])
    if dry_run:
        plan = make_plan(recipe, model, os.environ)
        if as_json:
            print_json(plan)
        else:
            _say(plan)
        return
    folder = output or Path("reproduced") / (f"{name}-small" if small else name)
    found = _run(recipe, small, model, limit, folder, dtype, device)
    _write(found, folder, as_json)


def _list(as_json: bool) -> None:
    from prunus.reproduce.recipe import recipes

    known = recipes()
    if as_json:
        print_json(
            {
                name: {
                    "model": one.model.name,
                    "summary": one.summary,
                    "source": one.table["source"],
                    "rows": len(one.arms()),
                    "absent": len(one.absent()),
                }
                for name, one in known.items()
            }
        )
        return
    console = out()
    widest = max(map(len, known))
    for name, one in known.items():
        line = f"{name:<{widest}}  {one.model.name}: {one.summary}"
        console.print(line, markup=False, no_wrap=True, overflow="ellipsis")


def _say(plan: Plan) -> None:
    from prunus.reproduce.library import protocols

    console = out()

    def lines(title: str, found: Sequence[str]) -> None:
        if found:
            console.print(f"\n{title}", style="bold", markup=False)
        for one in found:
            console.print(f"  {one}", markup=False, soft_wrap=True)

    console.print(plan["title"], style="bold", markup=False)
    words = protocols()[plan["protocol"]]
    console.print(f"model: {plan['model']}; {words}", markup=False, soft_wrap=True)
    lines("rows, and what stands for them", plan["rows"])
    lines(
        "asked with lmms-eval",
        [
            f"{one['column']}: {one['task']}, {one['questions']} questions of {one['split']}"
            + (f"; {one['note']}" if one["note"] else "")
            for one in plan["asked"]
        ],
    )
    lines("counted, without any weights", plan["counted"])
    lines(
        "to be downloaded",
        [
            f"{one['kind']}: {one['what']}: "
            + ("? GB" if one["gigabytes"] is None else f"{one['gigabytes']:g} GB")
            + f" ({one['how_known']})"
            for one in plan["downloads"]
        ],
    )
    if plan["downloads"]:
        console.print(f"  together at least {plan['gigabytes']:g} GB", markup=False)
    if plan["asked"]:
        hours = "unknown" if plan["hours"] is None else f"about {plan['hours']:g} hours"
        lines("time", [f"{hours}, without reading images: {plan['hours_how']}"])
    lines("the same by hand, a row at a time", _folded(plan["commands"]))
    missing = [f"{column}: {why}" for column, why in plan["not_measured"].items()]
    lines("columns that are not measured", missing)
    lines("rows that are not measured", plan["left_out"])
    lines("known of the published numbers", plan["notes"])


def _folded(commands: Sequence[str]) -> list[str]:
    """Of many commands that ask row by row, the first."""
    rows = [one for one in commands if one.startswith("prunus eval ")]
    if len(rows) <= _MOST_COMMANDS:
        return list(commands)
    more = (
        f"... and {len(rows) - 1} more, for the method and budget of each other row (all: --json)"
    )
    return [rows[0], more, *(one for one in commands if one not in rows)]


def _run(
    recipe: Recipe,
    small: bool,
    model: str | None,
    limit: int | None,
    folder: Path,
    dtype: str,
    device: str,
) -> Reproduction:
    from prunus.io.claim import claim
    from prunus.reproduce.running import reproduce as run
    from prunus.reproduce.store import Store

    arms: Sequence[Arm]
    missing: dict[str, str] = {}
    if small:
        arms, judges, name = _smaller(recipe, limit, dtype, device)
    else:
        arms, judges, name, missing = _whole(recipe, model, limit, dtype, device, folder)
    quiet_transformers()
    with option("--output", folder), claim(folder):
        watch = _Bars()
        try:
            with watch.bars:
                return run(
                    recipe,
                    arms,
                    judges,
                    Store(folder / "measured"),
                    watch,
                    other_model=name if small else None,
                    not_measured=missing,
                    made={"command": typed.command(), "model": name},
                )
        except KeyboardInterrupt:
            watch.say(f"stopped: what was measured is in {folder}; the same command goes on")
            raise


def _smaller(
    recipe: Recipe, limit: int | None, dtype: str, device: str
) -> tuple[list[Arm], list[Judge], str]:
    from prunus.cli.loading import check_device
    from prunus.reproduce.builtin import BuiltIn

    judge = BuiltIn(recipe.small, limit or _FEW, dtype, check_device(device))
    return [recipe.smaller(arm) for arm in recipe.arms()], [judge], recipe.small.model


def _whole(
    recipe: Recipe,
    model: str | None,
    limit: int | None,
    dtype: str,
    device: str,
    folder: Path,
) -> tuple[list[Arm], list[Judge], str, dict[str, str]]:
    from prunus.builtin import check_name
    from prunus.reproduce.formula import Formula, formula_columns
    from prunus.reproduce.plan import not_measured, task_columns
    from prunus.reproduce.tasks import Tasks

    name = model or recipe.model.checkpoint
    check_name(name)

    judges: list[Judge] = []
    if names := formula_columns(recipe):
        judges.append(Formula(recipe, names))
    missing = not_measured(recipe, os.environ)
    tasks = task_columns(recipe, os.environ)
    if tasks and model is None and recipe.model.why_not:
        missing |= {one.name: recipe.model.why_not for one in tasks}
    elif tasks:
        judges.append(Tasks(name, tasks, limit, dtype, device, folder / "answers"))
    if not judges:
        reasons = "; ".join(dict.fromkeys(missing.values()))
        raise BadInput(
            f"nothing of {recipe.name} can be measured: {reasons}. `--dry-run` says more, "
            "`--small` runs it on a built-in model"
        )
    return recipe.arms(), judges, name, missing


class _Bars:
    """Progress on a terminal; elsewhere a line that says how much there is."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = err()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        hidden = not self._console.is_terminal
        self.bars = Progress(*columns, console=self._console, transient=True, disable=hidden)
        self._task: Any = None

    def begin(self, total: int) -> None:
        self._task = self.bars.add_task("", total=total, completed=-1)
        if not self._console.is_terminal:
            self.say(f"{total} measurements")

    def step(self, words: str) -> None:
        self.bars.update(self._task, advance=1, description=words)

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def _write(found: Reproduction, folder: Path, as_json: bool) -> None:
    from prunus.io.files import write_text
    from prunus.reproduce.tables import markdown

    paths = [folder / "result.json", folder / "table.md"]
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    with option("--output", folder):
        write_text(paths[0], text + "\n")
        write_text(paths[1], markdown(found))
    if as_json:
        print_result({**found, "files": [str(path) for path in paths]})
        return
    _show(found)
    for path in paths:
        out().print(f"written: {path}", markup=False, soft_wrap=True)


def _show(found: Reproduction) -> None:
    from rich.table import Table

    from prunus.reproduce.tables import asked, heading, label, meanings, number, refusals

    console = out()
    console.print(found["title"], style="bold", markup=False)
    console.print(heading(found).replace("**", ""), markup=False)
    # no frame: the table must fit into 80 columns
    table = Table(box=None, padding=(0, 1, 0, 0))
    related = any(one["measured_relative"] is not None for one in found["lines"])
    names = [*found["columns"], *(["relative %"] if related else [])]
    for column in ("row", "budget", *map(label, names)):
        table.add_column(column, justify="left" if column == "row" else "right")

    def cell(one: Line, name: str) -> str:
        if name == "relative %":
            pair = (one["published_relative"], one["measured_relative"])
        else:
            pair = (one["published"].get(name), one["measured"].get(name))
        return f"{number(pair[0])}\n{number(pair[1])}"

    for one in found["lines"]:
        budget = f"{one['budget']:g}" if one["budget"] else ""
        table.add_row(f"{one['row']}\n {asked(one)}", budget, *(cell(one, n) for n in names))
    console.print(table)
    console.print("above: published; below: measured", style="dim")
    for words in meanings(found):
        console.print(words, markup=False, soft_wrap=True, style="dim")
    for one, job, why in refusals(found):
        words = f"refused: {one['row']} {one['budget']:g}: {job}: {why}"
        console.print(words, markup=False, soft_wrap=True)
    reasons: dict[str, list[str]] = {}
    for name, why in found["not_measured"].items():
        reasons.setdefault(why, []).append(name)
    for why, columns in reasons.items():
        words = f"not measured: {', '.join(columns)}: {why}"
        console.print(words, markup=False, soft_wrap=True)
    left = [f"{one['row']}: {one['why']}" for one in found["left_out"]]
    for words in dict.fromkeys(left):
        console.print(f"left out: {words}", markup=False, soft_wrap=True)
