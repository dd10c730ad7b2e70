"""``prunus calibrate``: parameters of a method for a model that its paper does not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli import calibrate_stepwise
from prunus.cli.asked import Batch, Data, Limit, Pictures, Prompts, asked
from prunus.cli.console import busy, out, print_json, progress, quiet_transformers
from prunus.cli.errors import BadInput, option
from prunus.cli.options import MOST, AsJson, Device, DType, Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from prunus.calibrate import Tried
    from prunus.method.calibration import Calibration

app = typer.Typer(help="Measure a method's parameters on a model.", no_args_is_help=True)
app.command("stepwise")(calibrate_stepwise.stepwise)


@app.command()
def visipruner(
    output: Annotated[
        Path, typer.Option(metavar="FILE.json", help="What VisiPruner(calibration=...) reads.")
    ],
    model: Model = "tiny-llava",
    data: Data = None,
    image: Pictures = None,
    prompt: Prompts = None,
    limit: Limit = 100,
    target: Annotated[
        float, typer.Option(help="Visual tokens to keep per prompt, on average.")
    ] = 10.0,
    layer_threshold: Annotated[
        float, typer.Option(help="Cosine below which a layer is the filtering layer.")
    ] = 0.995,
    shallow_layers: Annotated[
        int | None,
        typer.Option(min=0, max=MOST, metavar="S", help="Shallow layers; default: 0.19 of all."),
    ] = None,
    find_shallow: Annotated[
        bool, typer.Option("--find-shallow", help="Find the shallow layers, too.")
    ] = False,
    max_loss: Annotated[
        float, typer.Option(help="With --find-shallow: points that they must lose less than.")
    ] = 0.5,
    batch: Batch = 16,
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Find the threshold at which VisiPruner keeps the wanted number of tokens on average.

    Its default is for LLaVA-1.5-7B: it is tied to the scale of a model's values.
    """
    from dataclasses import asdict, replace

    from prunus.analyse.context import Context
    from prunus.calibrate import calibrate_visipruner
    from prunus.cli.loading import load_model
    from prunus.pruners.visipruner import VisiPruner
    from prunus.tasks.sets import training_questions

    if find_shallow and shallow_layers is not None:
        raise BadInput("--shallow-layers and --find-shallow exclude each other: give one")
    if not 0 < max_loss <= 100:
        raise BadInput(f"--max-loss {max_loss:g}: give points above 0, up to 100")
    if not target > 0:
        raise BadInput(f"--target {target:g}: give a number of visual tokens above 0")
    method = VisiPruner(shallow_layers=shallow_layers, layer_threshold=layer_threshold)
    questions = asked(data, image or [], prompt or [], limit) or training_questions(limit, 1)
    _make_room(output)
    quiet_transformers()
    network, processor = load_model(model, dtype, device)
    context = Context(network, processor, questions, batch=batch)
    method.cuts(context.depth)  # refuses too many shallow layers now, not after minutes
    with busy("encoding images"):
        prepared = context.batches
    tried: list[Tried] = []
    if find_shallow:
        shallow, tried = _find_shallow(context, max_loss)
        method = replace(method, shallow_layers=shallow)
    with progress("influence", len(questions.queries)) as step:
        batches = (context.inputs(one) for one in prepared)
        found = calibrate_visipruner(
            network, model, batches, method, target=target, step=_counted(step)
        )
    about = {"data": questions.name, "dtype": str(network.dtype).removeprefix("torch.")}
    curve = {"shallow_search": _curve(context, tried, max_loss)} if tried else {}
    found = replace(found, measured={**found.measured, **about, **curve})
    found.save(output)
    if as_json:
        print_json({**asdict(found), "file": str(output)})
        return
    _show(found, tried, output)


def _make_room(output: Path) -> None:
    """Refuse a place where no file can be written now, not after minutes of work."""
    from prunus.io.files import make_folder

    if output.is_dir():
        raise BadInput(f"--output {str(output)!r} is a folder: give a file name in .json")
    with option("--output", output):
        make_folder(output.parent)


def _find_shallow(context: Any, max_loss: float) -> tuple[int, list[Tried]]:
    from prunus.calibrate.shallow import candidates, find_shallow

    settings = 1 + len(candidates(context.depth))
    with progress("shallow layers", settings * len(context.data.queries)) as step:
        return find_shallow(context, max_loss / 100, _counted(step))


def _counted(step: Callable[[], None]) -> Callable[[int], None]:
    """A step that is told how many."""

    def steps(count: int) -> None:
        for _ in range(count):
            step()

    return steps


def _curve(context: Any, tried: Sequence[Tried], max_loss: float) -> dict[str, Any]:
    """What the search for shallow layers saw, for the file; the loss in points."""
    return {
        "measure": context.measure_name,
        "prompts": len(context.data.queries),
        "max_loss": max_loss,
        "curve": [
            {
                "shallow_layers": one.layers,
                context.measure_name: one.success,
                "loss": -100 * one.difference.value,
            }
            for one in tried
        ],
    }


def _show(found: Calibration, tried: Sequence[Tried], output: Path) -> None:
    console, params, seen = out(), found.params, found.measured
    if tried:
        search = seen["shallow_search"]
        console.print(
            f"shallow stage alone, {search['prompts']} prompts (one is "
            f"{100 / search['prompts']:.2g} points), loss below {search['max_loss']:g} wanted",
            markup=False,
            soft_wrap=True,
        )
        console.print(_table(tried, search["measure"]))
        console.print()
    kept, layers = seen["kept"], seen["filtering_layers"]
    triggered = round(seen["triggered"] * seen["prompts"])
    where = ", ".join(f"{layer}: {count}" for layer, count in layers.items())
    lines = [
        f"{found.model}, {seen['prompts']} prompts ({seen['data']}), {found.depth} decoder layers",
        f"shallow layers    {params['shallow_layers']}",
        f"filtering layers  {where}; none in {seen['prompts'] - triggered} prompts "
        f"(cosine below {params['layer_threshold']})",
        f"tokens_threshold  {params['tokens_threshold']:.6g}: keeps {kept['mean']:.2f} of "
        f"{seen['visual_tokens']:g} visual tokens on average "
        f"(median {kept['median']:g}, {kept['min']} to {kept['max']})",
        f"relative          {seen['relative']:.4g} of the attention output's length, "
        f"{seen['output']:.4g} on average",
        f"written: {output}; use it with --method visipruner --param calibration={output}",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _table(tried: Sequence[Tried], measure: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("S", f"{measure} %", "loss, points [95 %]"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in tried:
        value, low, high = (-100 * number for number in one.difference)
        loss = f"{value:.1f} \\[{high:.1f}, {low:.1f}]" if one.layers else ""
        table.add_row(str(one.layers), f"{100 * one.success:.1f}", loss)
    return table
