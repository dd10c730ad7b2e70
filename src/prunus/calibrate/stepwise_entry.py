"""``prunus calibrate stepwise``: a constant on STOP's logit for each mean budget."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from prunus.calibrate.setup import Opt, Outcome, Setup
from prunus.calibrate.stepwise import MeanBudget, encode_prompts, mean_budget
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.inference.params import parse_keep
from prunus.io.claim import claim
from prunus.selector.store import load_selector, save_selector
from prunus.sharing.page import write_page
from prunus.tasks.sets import EvalSet, builtin_set_for
from prunus.train.sources import held_out_scenes


def calibrate(
    setup: Setup,
    *,
    selector: Annotated[
        Path, Opt("The selector's folder; what is found is stored there.", metavar="DIR")
    ],
    keep: Annotated[
        str,
        Opt("Mean budgets: shares of the tokens (0.111), or counts (64).", metavar="K,K,..."),
    ],
    limit: Annotated[int, Opt("At most so many prompts.", least=1)] = 200,
) -> Outcome:
    """Find what to add to STOP's logit so that the mean over questions comes to a budget.

    Single images keep more or fewer. Use it with --method stepwise --param mode=mean.
    """
    budgets = [parse_keep(text.strip()) for text in keep.split(",")]
    questions = setup.asked(limit) or _scenes(setup.model, limit)
    context = setup.context(questions)
    family = family_of(context.model)
    # Nobody else may change the selector meanwhile.
    with claim(selector) if selector.is_dir() else nullcontext():
        chosen, card = load_selector(selector, family)
        chosen = chosen.to(context.model.device)
        with setup.busy("encoding images"):
            prepared = context.batches
        with setup.counted("questions", len(questions.queries)) as step:
            # Where a selector reads the tower's features, the tower must run.
            shown = (
                {**one.text, **context.vision.inputs(one.shown, in_tower=family.reads_tower)}
                for one in prepared
            )
            encoded = encode_prompts(context.model, shown, chosen, card, step)
        sizes = {one.rows.shape[1] for one in encoded}
        wanted = [_share(budget, sizes) for budget in budgets]
        found: list[MeanBudget] = []
        for share in wanted:
            with setup.busy(f"a mean of {share:.4g}"):
                found.append(mean_budget(chosen, encoded, share))
        biases = {**card.biases, **{f"{one.wanted:.6g}": one.bias for one in found}}
        save_selector(selector, chosen, replace(card, biases=biases))
        write_page(selector)
    return _outcome(found, questions, setup.model, selector)


def _scenes(model: str, limit: int) -> EvalSet:
    """Drawn scenes that no selector was trained on, as the model is used to them."""
    return held_out_scenes(limit, sizes=builtin_set_for(model) == "sizes")


def _share(budget: int | float, sizes: set[int]) -> float:
    """A budget as a share of the tokens of every image, of which they have ``sizes``."""
    if isinstance(budget, float):
        return budget
    if len(sizes) > 1:
        raise PrunusError(
            f"--keep {budget}: these images have {min(sizes)} to {max(sizes)} visual tokens, give "
            "a share of them instead of a count"
        )
    return budget / min(sizes)


def _outcome(
    found: Sequence[MeanBudget], questions: EvalSet, model: str, selector: Path
) -> Outcome:
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
    facts = {
        "model": model,
        "selector": str(selector),
        "data": questions.name,
        "questions": len(questions.queries),
        "budgets": [asdict(one) for one in found],
    }
    return Outcome(facts, lines)
