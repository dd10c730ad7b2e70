"""Prompt ends from which nothing can be chosen, and ends that were told for nobody."""

from __future__ import annotations

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Method, Uniform, VisiPruner
from tests.support.models import Case
from tests.support.qwen import qwen

SEEING: list[Method] = [CLSE(keep=5, variant="hybrid"), VisiPruner()]
seeing = pytest.mark.parametrize("method", SEEING, ids=lambda method: method.name)


@seeing
@pytest.mark.parametrize("where", ["before", "inside", "between"])
def test_an_answer_before_an_image(case: Case, method: Method, where: str) -> None:
    """Its last token sees no visual token: before, the first ones were kept without a word."""
    inputs = case.prompts.rows(2)
    first, _ = case.prompts.spots(inputs["input_ids"])[0]
    start = {"before": 2, "inside": first[3], "between": first[-1] + 2}[where]
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[0, start] = 5
    labels[0, -2:] = 6
    with prunus.prune(case.model, method) as run, torch.no_grad():
        with pytest.raises(prunus.PrunusError, match="an answer stands before the image"):
            case.model(**inputs, labels=labels)
        run.prompt_ends(start - 1)
        with pytest.raises(prunus.PrunusError, match="an answer stands before the image"):
            case.model(**inputs)
        run.prompt_ends(-3)
        case.model(**inputs, labels=labels)
    with prunus.prune(case.model, Uniform(keep=5)), torch.no_grad():
        case.model(**inputs, labels=labels)  # who does not look does not mind


def test_an_end_that_was_told_for_a_call_that_never_came(llava: Case) -> None:
    inputs, kept = llava.prompts.rows(1), []
    run = prunus.prune(llava.model, SEEING[0])
    for _ in range(2):
        with run, torch.no_grad():
            llava.model(**inputs)
            kept.append(run.trace[0].kept[0][0].tolist())
            run.prompt_ends(-4)
    assert kept[0] == kept[1]


def test_a_tower_that_takes_no_bias_is_refused_for_that() -> None:
    with pytest.raises(prunus.PrunusError, match="takes none"):
        prunus.prune(qwen(), EvoPrune(keep=0.5, proportional=True))
