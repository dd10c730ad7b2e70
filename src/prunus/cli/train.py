"""``prunus train``: what a method learns, for any supported model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from prunus.cli.console import err, out, print_result, quiet_transformers
from prunus.cli.errors import BadInput, option
from prunus.cli.options import MOST, AsJson, DType, Model, OnErrorOption
from prunus.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunus.selector.config import TrainSettings
    from prunus.train.options import Options, Result
    from prunus.train.sources import Split

app = typer.Typer(help="Train what a method learns.", no_args_is_help=True)

_CONTROLS = ("one-shot", "no-stop")
_PRECISIONS = ("no", "bf16", "fp16")
#: For the built-in models, where ``--set`` and the options say nothing else.
_SMALL = {
    "steps": 300,
    "batch": 8,
    "rate": 1e-3,
    "final_rate": 5e-5,
    "length": 0.3,
    "max_steps": 128,
    "sharp_from": 0.5,
}


@app.callback()
def group() -> None:
    """Keeps ``stepwise`` a subcommand while it is the only one."""


@app.command()
def stepwise(
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="The selector's folder; run and log go there, too.")
    ],
    model: Model = "tiny-llava",
    data: Annotated[
        str,
        typer.Option(
            metavar="builtin|FILE",
            help="builtin: drawn scenes. Or JSON lines with image (path beside the file), question "
            "and answer; or LLaVA's conversations (.json, .jsonl).",
        ),
    ] = "builtin",
    steps: Annotated[int | None, typer.Option(min=1, max=MOST, help="Optimiser steps.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many minutes, at a checkpoint.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Examples per step, of all processes and pieces."),
    ] = None,
    accumulate: Annotated[
        int, typer.Option(min=1, max=MOST, help="Pieces of a batch: the more, the less memory.")
    ] = 1,
    rate: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    length: Annotated[
        float | None,
        typer.Option(metavar="LAMBDA", help="Weight of K/N: the larger, the fewer tokens."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Train for exactly so many tokens (64) or this share (0.111): no STOP."),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Most tokens picked in training, for speed.")
    ] = None,
    arm: Annotated[
        str | None, typer.Option(metavar="stable|literal", help="literal: the paper as printed.")
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            metavar="one-shot|no-stop",
            help="A control: scores for all tokens at once, or steps without STOP; with --keep.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Another setting (aggregate=last), or one of the selector's shape "
            "(selector.causal_encoder=true); repeatable.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="no|bf16|fp16", help="Autocast of the frozen model."),
    ] = None,
    on_error: OnErrorOption = "stop",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    held_out: Annotated[
        int, typer.Option(min=0, max=MOST, metavar="N", help="Questions to measure accuracy on.")
    ] = 210,
    every: Annotated[
        int, typer.Option(min=1, max=MOST, help="Steps between two measurements.")
    ] = 500,
    save_every: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Between two checkpoints.")
    ] = 300.0,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MOST, help="Of weights, order and noise.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=10_000, help="CPU threads.")] = None,
    workers: Annotated[
        int, typer.Option(min=0, max=10_000, help="Processes that prepare data.")
    ] = 0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's files, too.")
    ] = False,
    as_json: AsJson = False,
    dtype: DType = "auto",
) -> None:
    """Train the selector of Stepwise for a frozen model.

    Ctrl-C stops at a checkpoint; --resume goes on from there. On several GPUs: accelerate launch
    -m prunus train stepwise ...
    """
    given = {
        "steps": steps,
        "batch": batch,
        "rate": rate,
        "length": length,
        "keep": keep,
        "max_steps": max_steps,
        "arm": arm,
        "seed": seed,
    }
    values = {name: value for name, value in given.items() if value is not None}
    settings = build_settings(model, values, control, changes or [])
    if precision is not None and precision not in _PRECISIONS:
        raise unknown("precision", precision, list(_PRECISIONS))
    from prunus.io.files import make_folder
    from prunus.tasks.sets import builtin_set_for
    from prunus.train.log import check_tensorboard
    from prunus.train.options import Options
    from prunus.train.sources import open_source
    from prunus.train.state import check_folder
    from prunus.train.trainer import check_accelerate

    options = Options(
        minutes=minutes,
        accumulate=accumulate,
        precision=precision,  # type: ignore[arg-type]
        every=every,
        save_every=save_every,
        workers=workers,
        tensorboard=tensorboard,
        on_error=on_error,  # type: ignore[arg-type]
    )
    check_accelerate()
    if tensorboard:
        check_tensorboard()
    check_folder(output, resume)
    with option("--output", output):
        make_folder(output)
    sizes = builtin_set_for(model) == "sizes"
    split = open_source(data, held_out, settings.seed, sizes, options.on_error)
    result = _train(model, dtype, split, settings, output, options, resume, threads)
    if result.main:
        _show(result, settings, model, split, output, as_json)
    if result.stopped == "interrupt":
        raise typer.Exit(130)


def build_settings(
    model: str, options: Mapping[str, Any], control: str | None, changes: Sequence[str]
) -> TrainSettings:
    """Settings from ``--steps`` and the like, ``--control`` and ``--set``; what none of them says
    is as :class:`TrainSettings` has it, or as a built-in ``model`` wants it.

    Raises:
        BadInput: an unknown field, a value that does not fit, one that is given twice, a control
            without ``keep``.
        PrunusError: settings that contradict each other.
    """
    from prunus.builtin import BUILTIN
    from prunus.inference.params import parse_keep
    from prunus.selector.config import TrainSettings

    values = dict(options)
    selector: dict[str, Any] = {}
    if control is not None:
        if control not in _CONTROLS:
            raise unknown("control", control, list(_CONTROLS))
        if control == "one-shot":
            selector["kind"] = "one-shot"
    for change in changes:
        name, value = _change(change)
        owner, field = (selector, name[len(_OF_SELECTOR) :]) if _inner(name) else (values, name)
        if field in owner:
            raise BadInput(f"{name} is given twice: by --set, and by --set or an option of its own")
        owner[field] = value
    if isinstance(values.get("keep"), str):
        values["keep"] = parse_keep(values["keep"])
    if control is not None and values.get("keep") is None:
        raise BadInput(f"--control {control} keeps a fixed number of tokens: add --keep")
    small = _SMALL if model in BUILTIN else {}
    return TrainSettings(**{**small, **values}, selector=selector)


_OF_SELECTOR = "selector."


def _inner(name: str) -> bool:
    return name.startswith(_OF_SELECTOR)


def _change(text: str) -> tuple[str, Any]:
    """Name and value of ``FIELD=VALUE``."""
    from prunus.inference.params import convert
    from prunus.selector.config import SelectorConfig, TrainSettings

    hints = get_type_hints(TrainSettings)
    del hints["selector"]  # field by field instead
    for name, hint in get_type_hints(SelectorConfig).items():
        if name not in ("visual_width", "text_width"):  # the model's
            hints[_OF_SELECTOR + name] = hint
    name, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"--set {text!r} is not FIELD=VALUE")
    if name not in hints:
        raise unknown("setting", name, list(hints))
    return name, value if name == "keep" else convert(name, value, hints[name])


def _train(
    model: str,
    dtype: str,
    split: Split,
    settings: TrainSettings,
    output: Path,
    options: Options,
    resume: bool,
    threads: int | None,
) -> Result:
    import torch

    from prunus.cli.loading import load_model
    from prunus.train.trainer import train
    from prunus.train.watch import Display

    if threads is not None:
        torch.set_num_threads(threads)
    quiet_transformers()
    network, processor = load_model(model, dtype, "cpu")  # accelerate says where it goes
    with Display(err()) as display:
        return train(network, processor, model, split, settings, output, options, resume, display)


def _show(
    result: Result,
    settings: TrainSettings,
    model: str,
    split: Split,
    output: Path,
    as_json: bool,
) -> None:
    if result.stopped is not None:
        why = {"minutes": "its time is over", "interrupt": "interrupted"}[result.stopped]
        err().print(
            f"stopped at step {result.step} of {settings.steps} ({why}); go on with the same "
            "command and --resume",
            markup=False,
            soft_wrap=True,
        )
    if as_json:
        print_result(
            {
                "model": model,
                "data": split.name,
                "output": str(output),
                "step": result.step,
                "steps": settings.steps,
                "stopped": result.stopped,
                "seconds": result.seconds,
                "figures": _finite(result.figures),
                "held_out": _finite(result.held_out),
                "parameters": result.parameters,
                "skipped": list(result.left_out),
                "selector": result.config.as_dict(),
                "settings": settings.as_dict(),
            }
        )
        return
    console = out()
    figures, held = result.figures, result.held_out
    lines = [
        f"{model}: {result.parameters:,} weights, {result.step} of {settings.steps} steps in "
        f"{result.seconds / 60:.1f} minutes"
    ]
    if figures:
        lines.append(
            f"training    loss {figures['loss']:.4f}, of it LM {figures['lm']:.4f}; "
            f"K {figures['kept']:.1f} ({figures['share']:.1%})"
        )
    if held:
        dense = f", unpruned {held['dense']:.1%}" if "dense" in held else ""
        right = f"{held['accuracy']:.1%} of {held['questions']:.0f} questions right"
        lines.append(f"held out    {right}{dense}; K {held['kept']:.1f}")
    kind = result.config.kind
    lines.append(f"written: {output}; use it with --method {kind} --param selector={output}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which knows no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
