"""``prunus builtin``: the small models that ship with prunus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.errors import BadInput
from prunus.errors import unknown

app = typer.Typer(help="The built-in models.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keeps ``train`` a subcommand while it is the only one."""


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Which built-in model.")] = "tiny-llava",
    output: Annotated[
        Path | None, typer.Option(help="Folder of checkpoint and log; default runs/NAME.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many minutes, at a checkpoint.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="When done, write a model folder there (safetensors).")
    ] = None,
) -> None:
    """Train a built-in model: resumable, fixed seeds, CPU or GPU. tiny-llava begins from nothing,
    the language model of tiny-qwen as that of tiny-llava."""
    from prunus.builtin import BUILTIN

    if name not in BUILTIN:
        raise unknown("built-in model", name, list(BUILTIN))
    if minutes is not None and not minutes > 0:
        raise BadInput(f"--minutes {minutes}: give a positive number")
    from prunus.recipes.export import export_checkpoint
    from prunus.recipes.train import train as train_model

    folder = output or Path("runs") / name
    done = train_model(name, folder, minutes, resume)
    if export is not None and done:
        export_checkpoint(folder / "checkpoint.pt", export)
    elif not done:
        typer.echo(f"stopped early; go on with: prunus builtin train {name} --resume", err=True)
