"""``prunus calibrate METHOD``: parameters of a method for a model that its paper does not have.

Which methods there are and what options they have is known once they are imported, so that the
commands are made when they are asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperGroup

from prunus.cli.asked import Batch, Data, Pictures, Prompts, asked
from prunus.cli.console import busy, out, print_result, progress, quiet_transformers
from prunus.cli.flowing import flowing
from prunus.cli.options import MOST, AsJson, Device, DType, Model


class _Calibrators(TyperGroup):
    """A command for each method that names a calibrator."""

    def list_commands(self, ctx: Any) -> list[str]:
        from prunus.calibrate import calibrated

        return calibrated()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        one = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        one.command(cmd_name)(command(cmd_name))
        return flowing(typer.main.get_command(one))


app = typer.Typer(
    cls=_Calibrators, help="Measure a method's parameters on a model.", no_args_is_help=True
)


def command(name: str) -> Callable[..., None]:
    """The command of the method called ``name``: its calibrator's own options, and those that all
    have.

    Raises:
        PrunusError: no such method, or one with nothing to calibrate.
    """
    from prunus.calibrate import Outcome, Setup, calibrator_of

    calibrator = calibrator_of(name)

    def run(
        *,
        model: Model = "tiny-llava",
        data: Data = None,
        image: Pictures = None,
        prompt: Prompts = None,
        batch: Batch = 16,
        as_json: AsJson = False,
        dtype: DType = "auto",
        device: Device = "auto",
        **own: Any,
    ) -> None:
        from prunus.cli.loading import load_model

        def load() -> tuple[Any, Any]:
            quiet_transformers()
            return load_model(model, dtype, device)

        setup = Setup(
            model,
            load,
            lambda limit: asked(data, image or [], prompt or [], limit),
            batch,
            busy,
            progress,
        )
        found: Outcome = calibrator(setup, **own)
        if as_json:
            print_result(found.facts)
            return
        for line in found.lines:
            out().print(line, markup=False, soft_wrap=True)

    common = list(inspect.signature(run, eval_str=True).parameters.values())[:-1]
    parameters = [*_options(calibrator), *common]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__doc__ = calibrator.__doc__
    return run


def _options(calibrator: Callable[..., Any]) -> list[inspect.Parameter]:
    """The calibrator's keywords as options of a command."""
    hints = get_type_hints(calibrator, include_extras=True)
    _, *own = inspect.signature(calibrator).parameters.values()
    return [one.replace(annotation=_option(one.name, hints[one.name])) for one in own]


def _option(name: str, hint: Any) -> Any:
    kind, opt = get_args(hint)[0], hint.__metadata__[0]
    whole = kind is int or int in get_args(kind)
    flag = f"--{name.replace('_', '-')}"
    return Annotated[
        kind,
        typer.Option(
            *([flag] if kind is bool else []),
            help=opt.help,
            metavar=opt.metavar,
            min=opt.least,
            max=MOST if whole else None,
        ),
    ]
