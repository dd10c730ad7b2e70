"""``prunus compare``: many methods side by side, with what a sceptic asks for."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli.compare_output import write
from prunus.cli.compare_progress import watched
from prunus.cli.compare_setting import device_of, over, setting_of, workers_on
from prunus.cli.errors import BadInput, option
from prunus.cli.options import MOST, AsJson, Device, DType, OnErrorOption
from prunus.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunus.compare.contract import Comparison


def compare(
    context: typer.Context,
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
            "trained, and what ships trained for built-in models.",
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
            help="Write page.html, comparison.json, tables as Markdown and LaTeX, and answers and "
            "rows as Parquet.",
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
    from prunus.compare.output import files_in, needed
    from prunus.compare.presets import PRESETS
    from prunus.io.claim import claim
    from prunus.io.files import check_place
    from prunus.tasks.faults import Faults
    from prunus.tasks.sets import load_set

    def check_places() -> None:
        if markdown is not None:
            with option("--markdown", markdown):
                check_place(markdown)
        if output is not None:
            with option("--output", output):
                for file in files_in(output):
                    check_place(file)

    check_places()
    if output is not None:
        needed()
    if sources:
        _alone(context)
        write(_joined(sources, rival), output, markdown, as_json)
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
    chosen = over(PRESETS[preset], keep, budget, seeds, limit, pictures)
    setting = setting_of(chosen, models, data, methods, rival)
    setting = replace(
        setting,
        batch=batch,
        skip=on_error == "skip",
        rounds=chosen.rounds if timed else 0,
        dtype=dtype,
        device=device_of(device),
    )
    count = workers or workers_on(setting.device)
    with ExitStack() as held:
        # The folders are claimed now, not after minutes of work.
        for name, folder in (("--output", output), ("--store", place)):
            if folder is not None:
                with option(name, folder):
                    held.enter_context(claim(folder))
        check_places()  # what is a folder now is no place for a file
        plain = chosen == PRESETS[preset] and (models, data, methods, rival) == (None,) * 4
        title = f"prunus compare --preset {preset}" if plain else "prunus compare"
        comparison = watched(setting, place, count, title)
        write(comparison, output, markdown, as_json)
    if broken := [note for note in comparison["notes"] if ": failed: " in note]:
        raise BadInput(f"{len(broken)} rows failed: {broken[0]}")


#: Options that say what is written, and so stand beside --from.
_WRITTEN = ("sources", "output", "markdown", "as_json", "rival")


def _alone(context: typer.Context) -> None:
    """Raise BadInput where options beside --from say what would be asked."""
    given = [
        one.opts[0]
        for one in context.command.params
        if one.name not in (None, *_WRITTEN)
        and getattr(context.get_parameter_source(str(one.name)), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise BadInput(
            f"--from asks nothing, and writes all that is there: leave out {', '.join(given)} "
            "(--output, --markdown, --rival and --json go with it), or leave out --from to ask"
        )


def _joined(sources: Sequence[str], rival: str | None) -> Comparison:
    """The comparisons that are named, as one."""
    from prunus.cli.eval import listed
    from prunus.compare.joining import joined
    from prunus.compare.reading import place_of, read_comparison
    from prunus.compare.thumbnails import illustrated
    from prunus.inference.named import NONE

    places: list[str] = []
    for text in sources:
        places += [text] if Path(text).exists() else listed(text, "--from")
    real = [os.path.realpath(place_of(Path(one))) for one in places]
    for number, one in enumerate(places):
        if (first := real.index(real[number])) < number:
            also = "" if places[first] == one else f": it is {places[first]!r}, too"
            raise BadInput(f"--from names {one!r} more than once{also}")
    found = joined([read_comparison(Path(one)) for one in places], rival)
    if rival not in (None, NONE) and all(run["rival"] != rival for run in found["runs"]):
        raise BadInput(f"--rival {rival!r} is none of the methods there")
    return illustrated(found)
