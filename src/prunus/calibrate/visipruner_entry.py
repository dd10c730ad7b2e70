"""``prunus calibrate visipruner``: the threshold for a model, and its shallow layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from prunus.analyse.context import Context
from prunus.calibrate.setup import Opt, Outcome, Setup, make_room
from prunus.calibrate.shallow import Tried, candidates, find_shallow
from prunus.calibrate.visipruner import calibrate_visipruner
from prunus.errors import PrunusError
from prunus.method.calibration import Calibration
from prunus.pruners.visipruner import VisiPruner
from prunus.tasks.sets import training_questions


def calibrate(
    setup: Setup,
    *,
    output: Annotated[Path, Opt("What VisiPruner(calibration=...) reads.", metavar="FILE.json")],
    limit: Annotated[int, Opt("At most so many prompts.", least=1)] = 100,
    target: Annotated[float, Opt("Visual tokens to keep per prompt, on average.")] = 10.0,
    layer_threshold: Annotated[
        float, Opt("Cosine below which a layer is the filtering layer.")
    ] = 0.995,
    shallow_layers: Annotated[
        int | None, Opt("Shallow layers; default: 0.19 of all.", least=0, metavar="S")
    ] = None,
    find_shallow: Annotated[bool, Opt("Find the shallow layers, too.")] = False,
    max_loss: Annotated[
        float, Opt("With --find-shallow: points that they must lose less than.")
    ] = 0.5,
) -> Outcome:
    """Find the threshold at which VisiPruner keeps the wanted number of tokens on average.

    Its default is for LLaVA-1.5-7B: it is tied to the scale of a model's values.
    """
    if find_shallow and shallow_layers is not None:
        raise PrunusError("--shallow-layers and --find-shallow exclude each other: give one")
    if not 0 < max_loss <= 100:
        raise PrunusError(f"--max-loss {max_loss:g}: give points above 0, up to 100")
    if not target > 0:
        raise PrunusError(f"--target {target:g}: give a number of visual tokens above 0")
    method = VisiPruner(shallow_layers=shallow_layers, layer_threshold=layer_threshold)
    questions = setup.asked(limit) or training_questions(limit, 1)
    make_room(output)
    context = setup.context(questions)
    method.cuts(context.depth)  # refuses too many shallow layers now, not after minutes
    with setup.busy("encoding images"):
        prepared = context.batches
    tried: list[Tried] = []
    if find_shallow:
        shallow, tried = _search(setup, context, max_loss)
        method = replace(method, shallow_layers=shallow)
    with setup.counted("influence", len(questions.queries)) as step:
        batches = (context.inputs(one) for one in prepared)
        found = calibrate_visipruner(
            context.model, setup.model, batches, method, target=target, step=step
        )
    dtype = str(context.model.dtype).removeprefix("torch.")
    curve = {"shallow_search": _curve(context, tried, max_loss)} if tried else {}
    measured = {**found.measured, "data": questions.name, "dtype": dtype, **curve}
    found = replace(found, measured=measured)
    found.save(output)
    return Outcome({**asdict(found), "file": str(output)}, _lines(found, tried, output))


def _search(setup: Setup, context: Context, max_loss: float) -> tuple[int, list[Tried]]:
    settings = 1 + len(candidates(context.depth))
    with setup.counted("shallow layers", settings * len(context.data.queries)) as step:
        return find_shallow(context, max_loss / 100, step)


def _curve(context: Context, tried: Sequence[Tried], max_loss: float) -> dict[str, Any]:
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


def _lines(found: Calibration, tried: Sequence[Tried], output: Path) -> list[str]:
    params, seen = found.params, found.measured
    kept, layers = seen["kept"], seen["filtering_layers"]
    triggered = round(seen["triggered"] * seen["prompts"])
    where = ", ".join(f"{layer}: {count}" for layer, count in layers.items())
    return [
        *(_searched(tried, seen["shallow_search"]) if tried else []),
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


def _searched(tried: Sequence[Tried], search: dict[str, Any]) -> list[str]:
    lines = [
        f"shallow stage alone, {search['prompts']} prompts (one is "
        f"{100 / search['prompts']:.2g} points), loss below {search['max_loss']:g} wanted",
        f"  S  {search['measure']} %  loss, points [95 %]",
    ]
    for one in tried:
        value, low, high = (-100 * number for number in one.difference)
        loss = f"{value:.1f} [{high:.1f}, {low:.1f}]" if one.layers else ""
        lines.append(f"{one.layers:>3}  {100 * one.success:>11.1f}  {loss:>19}".rstrip())
    return [*lines, ""]
