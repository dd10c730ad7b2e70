"""The ``prunus`` command: its subcommands, and what becomes of errors.

Subcommands import torch and transformers inside their functions, so that ``--help`` is fast.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from prunus.cli import (
    analyse,
    batch,
    bench,
    builtin,
    calibrate,
    check,
    constraints,
    demo,
    hub,
    listing,
    models,
    run,
    serve,
    train,
    typed,
    web,
)
from prunus.cli import compare as compare_command
from prunus.cli import eval as eval_command
from prunus.cli import reproduce as reproduce_command
from prunus.cli import tune as tune_command
from prunus.cli.console import plain_warnings
from prunus.cli.errors import broken_torchvision, is_refusal
from prunus.cli.flowing import flowing
from prunus.cli.places import check_places
from prunus.errors import one_line

app = typer.Typer(
    name="prunus",
    help="Fewer visual tokens for multimodal language models, on unmodified transformers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    """Print versions on one line and end, where that is asked for."""
    if not asked:
        return
    from importlib.metadata import version

    from prunus.versions import __version__

    others = ", ".join(f"{name} {version(name)}" for name in ("transformers", "torch"))
    typer.echo(f"prunus {__version__} ({others}, Python {platform.python_version()})")
    raise typer.Exit


@app.callback()
def options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error was raised, too.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_tell_version,
            is_eager=True,
            help="Print the versions of prunus, transformers, torch and Python, and end.",
        ),
    ] = False,
) -> None:
    """Options of every command; ``--traceback`` is read by :func:`main`."""


app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("batch")(batch.batch)
app.command("check")(check.check)
app.command("constraints")(constraints.constraints)
app.command("eval")(eval_command.evaluate)
app.command("compare")(compare_command.compare)
app.command("tune")(tune_command.tune)
app.command("bench")(bench.bench)
app.command("reproduce")(reproduce_command.reproduce)
app.command("web")(web.web)
app.command("analyse")(analyse.analyse)
app.command("methods")(listing.methods)
app.command("models")(models.models)
app.add_typer(builtin.app, name="builtin")
app.add_typer(train.app, name="train")
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(serve.app, name="serve")
app.add_typer(hub.app, name="hub")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 `prunus check` found something wrong, 2 bad input
    (one line on stderr), 130 interrupted.

    Bad input is what is raised as PrunusError. Bugs are not caught: they end in Python's traceback
    and exit code 1.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    typed.remember(arguments)
    plain_warnings()
    command = flowing(typer.main.get_command(app))
    try:
        check_places(app, arguments)
        code = command.main(args=arguments, prog_name="prunus", standalone_mode=False)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `prunus` alone
            sys.stdout.write(str(getattr(error, "message", "")))
            sys.exit(0)
        message = _usage(error)
        if message is None:
            message = one_line(error) if is_refusal(error) else broken_torchvision(error)
        if message is None or "--traceback" in arguments:
            raise
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Exception) -> str | None:
    """The message of an error of typer's own parser, with the help command to look at."""
    if not hasattr(error, "format_message"):  # typer brings its own click since 0.22
        return None
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "prunus"
    name = getattr(error, "option_name", None)
    if name and context is not None and any(p.name == "param" for p in context.command.params):
        message = _parameter(name) or message
    return f"{message} (see `{path} --help`)"


def _parameter(option: str) -> str | None:
    """What is said of an option that there is not, but a parameter of a method with its name."""
    from prunus.inference.params import field_names
    from prunus.method import methods

    name = option.lstrip("-").replace("-", "_")
    having = sorted(one for one, method in methods().items() if name in field_names(method))
    if not having:
        return None
    some = " and ".join(having) if len(having) < 4 else f"{', '.join(having[:3])} and others"
    return f"No such option: {option}. Write --param {name}=...: a parameter of {some}"
