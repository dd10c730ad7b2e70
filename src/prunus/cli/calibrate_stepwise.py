"""``prunus calibrate stepwise``: a constant on STOP's logit for each mean budget."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.asked import Batch, Data, Limit, Pictures, Prompts, asked
from prunus.cli.console import busy, out, print_json, progress, quiet_transformers
from prunus.cli.errors import BadInput
from prunus.cli.options import AsJson, Device, DType, Model

if TYPE_CHECKING:
    from prunus.calibrate.stepwise import MeanBudget
    from prunus.tasks.sets import EvalSet


def stepwise(
    selector: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The selector's folder; what is found is stored there."),
    ],
    keep: Annotated[
        str,
        typer.Option(
            metavar="K,K,...", help="Mean budgets: shares of the tokens (0.111), or counts (64)."
        ),
    ],
    model: Model = "tiny-llava",
    data: Data = None,
    image: Pictures = None,
    prompt: Prompts = None,
    limit: Limit = 200,
    batch: Batch = 16,
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Find what to add to STOP's logit so that the mean over questions comes to a budget.

    Single images keep more or fewer. Use it with --method stepwise --param mode=mean.
    """
    from prunus.analyse.context import Context
    from prunus.calibrate.stepwise import encode_prompts, mean_budget
    from prunus.cli.loading import load_model
    from prunus.cli.params import parse_keep
    from prunus.families import family_of
    from prunus.io.claim import claim
    from prunus.selector.store import load_selector, save_selector

    budgets = [parse_keep(text.strip()) for text in keep.split(",")]
    questions = asked(data, image or [], prompt or [], limit) or _scenes(model, limit)
    quiet_transformers()
    network, processor = load_model(model, dtype, device)
    family = family_of(network)
    # Nobody else may change the selector meanwhile.
    with claim(selector) if selector.is_dir() else nullcontext():
        chosen, card = load_selector(selector, family)
        chosen = chosen.to(network.device)
        context = Context(network, processor, questions, batch=batch)
        with busy("encoding images"):
            prepared = context.batches
        with progress("questions", len(questions.queries)) as step:

            def steps(count: int) -> None:
                for _ in range(count):
                    step()

            # Where a selector reads the tower's features, the tower must run.
            shown = (
                {**one.text, **context.vision.inputs(one.shown, in_tower=family.reads_tower)}
                for one in prepared
            )
            encoded = encode_prompts(network, shown, chosen, card, steps)
        sizes = {one.rows.shape[1] for one in encoded}
        wanted = [_share(budget, sizes) for budget in budgets]
        found: list[MeanBudget] = []
        for share in wanted:
            with busy(f"a mean of {share:.4g}"):
                found.append(mean_budget(chosen, encoded, share))
        biases = {**card.biases, **{f"{one.wanted:.6g}": one.bias for one in found}}
        save_selector(selector, chosen, replace(card, biases=biases))
    _show(found, questions, model, selector, as_json)


def _scenes(model: str, limit: int) -> EvalSet:
    """Drawn scenes that no selector was trained on, as the model is used to them."""
    from prunus.tasks.sets import builtin_set_for
    from prunus.train.sources import held_out_scenes

    return held_out_scenes(limit, sizes=builtin_set_for(model) == "sizes")


def _share(budget: int | float, sizes: set[int]) -> float:
    """A budget as a share of the tokens of every image, of which they have ``sizes``."""
    if isinstance(budget, float):
        return budget
    if len(sizes) > 1:
        raise BadInput(
            f"--keep {budget}: these images have {min(sizes)} to {max(sizes)} visual tokens, give "
            "a share of them instead of a count"
        )
    return budget / min(sizes)


def _show(
    found: Sequence[MeanBudget], questions: EvalSet, model: str, selector: Path, as_json: bool
) -> None:
    if as_json:
        facts: dict[str, Any] = {
            "model": model,
            "selector": str(selector),
            "data": questions.name,
            "questions": len(questions.queries),
            "budgets": [asdict(one) for one in found],
        }
        print_json(facts)
        return
    console = out()
    lines = [f"{model}, {len(questions.queries)} questions ({questions.name})"]
    lines += [
        f"mean of {one.wanted:.4g}: {one.bias:+.4f} on STOP's logit keeps {one.share:.4g} "
        f"({one.kept:.1f} tokens; {one.least} to {one.largest})"
        for one in found
    ]
    lines.append(
        f"stored in {selector}; use them with --method stepwise --keep {found[0].wanted:.4g} "
        f"--param mode=mean --param selector={selector}"
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
