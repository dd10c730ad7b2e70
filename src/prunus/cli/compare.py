"""``prunus compare``: many methods side by side, with what a sceptic asks for."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import err, out, print_json, quiet_transformers
from prunus.cli.errors import BadInput, option
from prunus.cli.loading import check_model
from prunus.cli.options import MOST, AsJson, Device, DType, OnErrorOption
from prunus.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunus.compare.contract import Comparison
    from prunus.compare.presets import Preset
    from prunus.compare.setting import RunSpec, Setting
    from prunus.method.budget import Meaning


def compare(
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What is compared where options do not say it: smoke (a minute), readme (all "
            "methods at 33.3 and 11.1 %), leaderboard (everything).",
        ),
    ] = "readme",
    models: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Built-in names, folders, Hugging Face ids."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SET|FILE,...",
            help="Questions, each asked of every model: scenes, sizes, videos, or FILE.jsonl with "
            "image (path beside the file), question, answer, type per line; default: each "
            "model's own.",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Methods, presets, compositions (evoprune+clse), path/to/file.py:Class, and "
            "controls (ground-truth, blind, other-image); all: every one that needs nothing "
            "trained.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="K,K,...", help="Budgets: counts or shares of the visual tokens."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="true|nominal|both",
            help="What --keep counts: the average over all layers, or as published.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="How many seeds of random methods.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=0, max=MOST, help="Only the first so many questions of a set; 0: all."),
    ] = None,
    rival: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="All others are compared with this one, too; none: with no one."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="Processes that ask; default: one per core (one on a GPU)."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MOST, help="Questions at a time.")] = 32,
    timed: Annotated[
        bool, typer.Option("--time/--no-time", help="Time every method, after the answers.")
    ] = True,
    pictures: Annotated[
        int | None,
        typer.Option(min=0, max=MOST, help="Questions of each run of which is shown what is kept."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write page.html, comparison.json, table.md, table.tex, and answers and rows as "
            "Parquet.",
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where answers are kept, so that none is asked twice; default: OUTPUT/store.",
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables into this file, too.")
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="DIR|FILE.json,...",
            help="Ask nothing: write all of it anew from a comparison that is there (its folder, "
            "or its comparison.json), or from several as one: separated by commas, or --from A "
            "--from B.",
        ),
    ] = None,
    on_error: OnErrorOption = "stop",
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Compare methods on the same questions: accuracy, cost, and whether differences are real.

    Models x questions x methods x budgets, true and nominal side by side. Answers are stored as
    they come: Ctrl-C, and the same command later, go on where it was; more methods ask only what is
    missing. Differences and their intervals are paired and clustered by image, p values corrected
    for many comparisons.
    """
    from prunus.cli.eval import listed
    from prunus.compare.desk import load_set
    from prunus.compare.output import needed
    from prunus.compare.presets import PRESETS
    from prunus.io.claim import claim
    from prunus.io.files import check_place
    from prunus.tasks.faults import Faults

    if markdown is not None:
        check_place(markdown)
    if output is not None:
        needed()
    if sources:
        _write(_joined(sources, rival), output, markdown, as_json)
        return
    if preset not in PRESETS:
        raise unknown("preset", preset, list(PRESETS))
    if on_error not in ("stop", "skip"):
        raise unknown("--on-error", on_error, ["stop", "skip"])
    place = store if store is not None else None if output is None else output / "store"
    if place is None:
        raise BadInput(
            "answers are kept so that nothing is asked twice: add --output DIR, or --store DIR"
        )
    for one in listed(data, "--data") if data is not None else ():
        load_set(one, Faults("skip" if on_error == "skip" else "stop"))
    chosen = _over(PRESETS[preset], keep, budget, seeds, limit, pictures)
    setting = _setting(chosen, models, data, methods, rival)
    setting = replace(
        setting,
        batch=batch,
        skip=on_error == "skip",
        rounds=chosen.rounds if timed else 0,
        dtype=dtype,
        device=_device(device),
    )
    count = workers or _workers(setting.device)
    with ExitStack() as held:
        # The folders are claimed now, not after minutes of work.
        for name, folder in (("--output", output), ("--store", place)):
            if folder is not None:
                with option(name, folder):
                    held.enter_context(claim(folder))
        plain = chosen == PRESETS[preset] and (models, data, methods, rival) == (None,) * 4
        title = f"prunus compare --preset {preset}" if plain else "prunus compare"
        comparison = _compared(setting, place, count, title)
        _write(comparison, output, markdown, as_json)
    if broken := [note for note in comparison["notes"] if ": failed: " in note]:
        raise BadInput(f"{len(broken)} rows failed: {broken[0]}")


def _joined(sources: Sequence[str], rival: str | None) -> Comparison:
    """The comparisons that are named, as one."""
    from prunus.cli.eval import listed
    from prunus.compare.joining import joined
    from prunus.compare.output import read_comparison

    places: list[str] = []
    for text in sources:
        places += [text] if Path(text).exists() else listed(text, "--from")
    if doubled := [one for one in places if places.count(one) > 1]:
        raise BadInput(f"--from names {doubled[0]!r} more than once")
    return joined([read_comparison(Path(one)) for one in places], rival)


def _over(
    preset: Preset,
    keep: str | None,
    budget: str | None,
    seeds: int | None,
    limit: int | None,
    pictures: int | None,
) -> Preset:
    """``preset`` with what was said otherwise."""
    from prunus.cli.eval import listed
    from prunus.inference.params import parse_keep

    changes: dict[str, Any] = {}
    if keep is not None:
        changes["keeps"] = [parse_keep(text) for text in listed(keep, "--keep")]
    if budget is not None:
        meanings: dict[str, tuple[Meaning, ...]] = {
            "true": ("true",),
            "nominal": ("nominal",),
            "both": ("true", "nominal"),
        }
        if budget not in meanings:
            raise BadInput(f"--budget {budget!r}: choose true, nominal or both")
        changes["meanings"] = meanings[budget]
    if seeds is not None:
        changes["seeds"] = seeds
    if limit is not None:
        changes["limit"] = limit or None
    if pictures is not None:
        changes["pictures"] = pictures
    return replace(preset, **changes)


def _setting(
    preset: Preset,
    models: str | None,
    data: str | None,
    methods: str | None,
    rival: str | None,
) -> Setting:
    from prunus.cli.eval import listed
    from prunus.compare.presets import methods_of
    from prunus.compare.setting import RunSpec, Setting
    from prunus.evaluate.cells import GROUND_TRUTH, cell_name, make_cells
    from prunus.inference.named import NONE
    from prunus.tasks.sets import BUILTIN_SETS, builtin_set_for

    names = listed(models, "--models") if models is not None else list(preset.models)
    runs: list[RunSpec] = []
    for name in names:
        check_model(name)
        sets = [builtin_set_for(name)] if data is None else listed(data, "--data")
        runs += [RunSpec(name, one) for one in sets]
    scenes = all(run.data in BUILTIN_SETS for run in runs)
    everything = replace(preset, methods=None)
    chosen = methods_of(preset if methods != "all" else everything, scenes)
    if methods is not None and methods != "all":
        chosen = listed(methods, "--methods")
    if GROUND_TRUTH in chosen and not scenes:
        raise BadInput("ground-truth needs the scenes of the built-in questions: leave it out")
    # What is wrong is said at once.
    budgets = {one.name: one.keep for one in make_cells(chosen, preset.keeps, range(preset.seeds))}
    if rival not in (None, NONE):
        called = {one: cell_name(one) for one in chosen}
        name = called.get(rival, rival)
        if name not in called.values():
            raise BadInput(f"--rival {rival!r} is none of the methods: add it to --methods")
        if budgets[name] is None:
            raise BadInput(
                f"--rival {rival!r} has no budget at which others could be compared with it: name "
                "a method that takes --keep"
            )
        rival = name
    return Setting(
        tuple(runs),
        tuple(chosen),
        tuple(preset.keeps),
        tuple(preset.meanings),
        tuple(range(preset.seeds)),
        preset.rival if rival is None else rival if rival != NONE else None,
        preset.limit,
        pictures=preset.pictures,
    )


def _device(device: str) -> str:
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _workers(device: str) -> int:
    from prunus.compare.comparing import cores

    return cores() if device == "cpu" else 1


def _compared(setting: Setting, place: Path, workers: int, title: str) -> Comparison:
    """Compare under a progress bar on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    from prunus.compare.comparing import compare

    quiet_transformers()
    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bars:
        watch = _Bars(bars, console)
        try:
            return compare(
                setting,
                place,
                watch,
                workers=workers,
                command=_command(),
                title=title,
            )
        except KeyboardInterrupt:
            watch.say(f"stopped: the answers so far are in {place}; the same command goes on")
            raise


class _Bars:
    """Progress on a terminal; elsewhere a line that says how much there is."""

    def __init__(self, bars: Any, console: Any) -> None:
        self._bars, self._console = bars, console
        self._task: Any = None

    def stage(self, name: str, total: int) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(name, total=total)
        if name == "answers" and not self._console.is_terminal:
            self.say(f"{total} answers are to be given")

    def step(self, count: int) -> None:
        self._bars.advance(self._task, count)

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def _command() -> str:
    """What was typed, without the place of the program."""
    return shlex.join(["prunus", *sys.argv[1:]])


def _write(
    comparison: Comparison, output: Path | None, markdown: Path | None, as_json: bool
) -> None:
    from prunus.compare import tables
    from prunus.compare.output import write_comparison
    from prunus.io.files import write_text

    written: list[Path] = []
    if output is not None:
        with option("--output", output):
            written = write_comparison(output, comparison)
    if markdown is not None:
        write_text(markdown, tables.markdown(comparison))
        written.append(markdown)
    if as_json:
        print_json({**comparison, "files": [str(path) for path in written]})
        return
    _show(comparison, written)


def _show(comparison: Comparison, written: Sequence[Path]) -> None:
    from rich.table import Table

    from prunus.compare.tables import LEVEL

    console = out()
    for run in comparison["runs"]:
        # no frame: the table must fit into 80 columns
        table = Table(
            title=f"{run['model']}, {run['questions']} questions of {run['set']}",
            title_justify="left",
            box=None,
            padding=(0, 1, 0, 0),
        )
        for column in ("method", "asked", "true", "FLOPs", "accuracy % [95 %]", "to dense", "time"):
            table.add_column(column, justify="left" if column == "method" else "right")
        group: Any = None
        for row in (run["dense"], *run["rows"]):
            if group not in (None, (row["meaning"], row["asked"])):
                table.add_row()
            group = (row["meaning"], row["asked"])
            table.add_row(*_line(row))
        console.print(table)
        console.print()
    console.print(_LEGEND.format(level=LEVEL), markup=False, style="dim")
    for note in comparison["notes"]:
        if note.startswith(("refused:", "left out:")):
            console.print(note, markup=False, soft_wrap=True)
    for path in written:
        console.print(f"written: {path}", markup=False, soft_wrap=True)


def _line(row: Any) -> list[str]:
    from prunus.compare.tables import LEVEL

    letter = {"true": " t", "nominal": " n"}.get(row["meaning"], "")
    if row["refused"] is not None:
        asked = "" if row["asked"] is None else f"{row['asked']:.4g}{letter}"
        return [row["method"], asked, "refused", "", "", "", ""]
    asked = "" if row["nominal"] is None else f"{row['nominal']}{letter}"
    cost, accuracy = row["cost"], row["accuracy"]
    value, low, high = (100 * accuracy[part] for part in ("value", "low", "high"))
    change = ""
    if "dense" in row["against"]:
        one = row["against"]["dense"]
        sure = one["p_corrected"] is not None and one["p_corrected"] < LEVEL
        change = f"{100 * one['value']:+.1f}" + ("*" if sure else " ")
    return [
        row["method"],
        asked,
        f"{row['average']:.0f}",
        "" if cost["llm_flops"] is None else f"{cost['llm_flops']:.0%}",
        f"{value:.1f} \\[{low:.1f}, {high:.1f}]",
        change,
        "" if cost["time"] is None else f"{cost['time']['median']:.2f}",
    ]


_LEGEND = (
    "asked: visual tokens, as a true (t) or nominal (n) budget; true: their mean over decoder "
    "layers; FLOPs: of the language model against dense; time: of a prefill against dense; *: "
    "p < {level} after Holm's correction"
)
