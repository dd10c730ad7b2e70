"""``prunus calibrate fitprune``: how many tokens each layer of a model can spare."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, cast

from prunus.calibrate.fitprune import TRIED, calibrate_fitprune
from prunus.calibrate.setup import Opt, Outcome, Setup, make_room
from prunus.errors import PrunusError
from prunus.method.calibration import Calibration
from prunus.tasks.sets import training_questions


def calibrate(
    setup: Setup,
    *,
    output: Annotated[Path, Opt("What FitPrune(calibration=...) reads.", metavar="FILE.json")],
    limit: Annotated[int, Opt("At most so many prompts.", least=1)] = 64,
    ratio: Annotated[float, Opt("Share of the visual FLOPs to save.")] = 0.7,
) -> Outcome:
    """Find how many tokens FitPrune is to take out of each layer to save a share of the work.

    Its released tables are those of LLaVA-1.5-7B, for images of 576 tokens.
    """
    if not 0 < ratio < 1:
        raise PrunusError(f"--ratio {ratio:g}: give a share above 0, below 1")
    questions = setup.asked(limit) or training_questions(limit, 1)
    make_room(output)
    context = setup.context(questions)
    with setup.busy("encoding images"):
        prepared = context.batches
    with setup.counted("attention", (1 + TRIED) * len(questions.queries)) as step:
        batches = [partial(context.inputs, one) for one in prepared]
        found = calibrate_fitprune(context.model, setup.model, batches, ratio, step)
    dtype = str(context.model.dtype).removeprefix("torch.")
    found = replace(found, measured={**found.measured, "data": questions.name, "dtype": dtype})
    found.save(output)
    return Outcome({**asdict(found), "file": str(output)}, _lines(found, output))


def _lines(found: Calibration, output: Path) -> list[str]:
    seen, tokens = found.measured, found.params["tokens"]
    counts = cast(list[int], found.params["deleted"])
    return [
        f"{found.model}, {seen['prompts']} prompts ({seen['data']}), {found.depth} decoder layers",
        f"deleted   {' '.join(map(str, counts))}, of {tokens} tokens",
        f"alpha     {seen['alpha']:.4g} of attention may be lost: {100 * seen['flops']:.1f} % of "
        f"visual FLOPs are left, as the paper counts them ({100 * seen['ratio']:g} % were to go)",
        f"tokens    {seen['average']:.1f} per layer on average, {seen['left']} at the last",
        f"written: {output}; use it with --method fitprune --param calibration={output}",
    ]
