"""``prunus tune``: which method at which budget one's own questions bear."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli import typed
from prunus.cli.errors import BadInput, option
from prunus.cli.options import MOST, AsJson, Device, DType, OnErrorOption
from prunus.errors import unknown

if TYPE_CHECKING:
    from prunus.tune import Wish


def tune(
    data: Annotated[
        str,
        typer.Argument(
            metavar="FILE.jsonl",
            help="Questions: image (path beside the file), question and, on every line or on "
            "none, answer; without answers agreement with the dense model's own counts. To try "
            "it: tuning-scenes, tuning-sizes, which are drawn.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Built-in name, local folder or Hugging Face id.")],
    max_loss: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="So many points of accuracy may be lost, as in 1.0."),
    ] = None,
    min_speed_up: Annotated[
        float | None,
        typer.Option(metavar="TIMES", help="A prefill is to be so many times as fast, as in 1.5."),
    ] = None,
    max_kv: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE|PERCENT",
            help="KV cache of any prompt: 40MB, 64MiB; or 25%: of the dense model's bytes.",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="What may be the answer: methods, presets, compositions (evoprune+clse), "
            "path/to/file.py:Class; default: all that need nothing trained, and what ships "
            "trained for built-in models.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,...",
            help="Averages of visual tokens over all layers: counts or shares; default: "
            "0.5,0.333,0.222,0.111.",
        ),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of the images that are looked at once, at last."),
    ] = 0.5,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Only about so many questions, whole images of them."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=MOST, help="Longest answer, where none are given.")
    ] = 32,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="Processes that ask; default: one per core (one on a GPU)."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MOST, help="Questions at a time.")] = 32,
    timed: Annotated[
        bool,
        typer.Option("--time/--no-time", help="Time candidates; otherwise FLOPs are what counts."),
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write tune.json and pareto.png, and keep answers and the two sides of the "
            "questions; default: tune/MODEL-FILE.",
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where answers are kept, so that none is asked twice; default: OUTPUT/store.",
        ),
    ] = None,
    on_error: OnErrorOption = "stop",
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Find the method and the budget that your own questions bear: a line to paste, or "leave it
    dense".

    Half of the images are for choosing: by successive halving over methods, compositions and
    budgets. The other half is looked at once, under the one that was chosen. Ctrl-C, and the same
    command later, go on where it was.
    """
    from prunus.analyse.plots import check_matplotlib
    from prunus.cli.compare_progress import watching
    from prunus.cli.compare_setting import workers_on
    from prunus.cli.tune_output import write
    from prunus.io.claim import claim
    from prunus.tune import tune as find

    check_matplotlib()
    if on_error not in ("stop", "skip"):
        raise unknown("--on-error", on_error, ["stop", "skip"])
    given = (data, model, max_loss, min_speed_up, max_kv, methods, keep, held_out)
    wish = _wish(*given, dtype=dtype, device=device)
    folder = output if output is not None else Path("tune") / _called(model, data)
    place = store if store is not None else folder / "store"
    with ExitStack() as held:
        for name, one in (("--output", folder), ("--store", place)):
            with option(name, one):
                held.enter_context(claim(one))
        wish = _with_file(
            wish, data, folder, limit, max_new_tokens, batch, timed, on_error == "skip"
        )
        count = workers or workers_on(wish.device)
        with watching(place) as watch:
            found = find(wish, folder, place, watch, workers=count, command=typed.command())
        write(found, folder, as_json)


def _wish(
    data: str,
    model: str,
    max_loss: float | None,
    min_speed_up: float | None,
    max_kv: str | None,
    methods: str | None,
    keep: str | None,
    held_out: float,
    *,
    dtype: str,
    device: str,
) -> Wish:
    """What is wanted; what is wrong with it is said before anything is read or loaded."""
    from prunus.builtin import BUILTIN, check_name
    from prunus.cli.eval import listed
    from prunus.cli.loading import check_device
    from prunus.evaluate.cells import make_cells
    from prunus.inference.params import parse_keep
    from prunus.tasks.sets import BUILTIN_SETS
    from prunus.tune import Wish
    from prunus.tune.candidates import KEEPS, check_methods, default_methods
    from prunus.tune.goal import Goal, parse_kv
    from prunus.tune.questions import DRAWN

    if data in BUILTIN_SETS:
        drawn = f"tuning-{data}"
        raise BadInput(
            f"{data!r} are the questions of evaluations, by which nothing is to be chosen: "
            + (f"try {drawn}" if drawn in DRAWN else "give a file of your own")
        )
    if data not in DRAWN and not os.path.isfile(data):
        raise BadInput(f"no such file: {data!r} (drawn questions: {', '.join(DRAWN)})")
    if not 0 < held_out < 1:
        raise BadInput(f"--held-out {held_out:g}: give a share of the images, as in 0.5")
    goal = Goal(
        None if max_loss is None else max_loss / 100,
        min_speed_up,
        **({} if max_kv is None else parse_kv(max_kv)),
    )
    check_name(model)
    keeps = KEEPS if keep is None else tuple(parse_keep(one) for one in listed(keep, "--keep"))
    chosen = default_methods(model in BUILTIN) if methods is None else listed(methods, "--methods")
    check_methods(chosen)
    make_cells(chosen, keeps, (0,))
    return Wish(
        model,
        Path(data),
        goal,
        tuple(chosen),
        tuple(keeps),
        share=held_out,
        dtype=dtype,
        device=check_device(device),
    )


def _with_file(
    wish: Wish,
    data: str,
    folder: Path,
    limit: int | None,
    new_tokens: int,
    batch: int,
    timed: bool,
    skip: bool,
) -> Wish:
    """The same with a file of questions, drawn if need be, and how they are asked."""
    from dataclasses import replace

    from prunus.tune.questions import DRAWN, draw_questions

    path = draw_questions(data, folder / "drawn") if data in DRAWN else Path(data)
    return replace(
        wish,
        data=path,
        limit=limit,
        new_tokens=new_tokens,
        batch=batch,
        rounds=wish.rounds if timed else 0,
        skip=skip,
    )


def _called(model: str, data: str) -> str:
    """A name for what is found of a model and questions."""
    return f"{Path(model).name}-{Path(data).stem}"
