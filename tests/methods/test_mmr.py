"""MMR against a literal loop over tokens, on features taken from the unmodified model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import MMR
from prunus.families import family_of
from prunus.grid import Grid
from tests.support.entering import view_by_hand
from tests.support.facts import asks
from tests.support.models import Case


def features_of(case: Case, inputs: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
    """Of each image what enters the projector (Qwen2.5-VL: what leaves the merger), and the input
    of the language model."""
    family, seen = family_of(case.model), {}

    def tower(module: Any, args: tuple[Tensor]) -> None:
        seen["tower"] = args[0]

    def prompt(module: Any, args: Any, kwargs: dict[str, Tensor]) -> None:
        seen["prompt"] = kwargs["inputs_embeds"]

    hooks = [
        family.projector.register_forward_pre_hook(tower),
        family.language_model.register_forward_pre_hook(prompt, with_kwargs=True),
    ]
    with torch.no_grad():
        case.model(**inputs)
    for hook in hooks:
        hook.remove()
    visual = torch.stack(list(family.placeholders(inputs["input_ids"], None).values())).any(0)
    if family.reads_tower:
        places = family.places(family.default_grid())  # type: ignore[arg-type]
        return [one[places] for one in seen["tower"]], seen["prompt"]
    return [row[here] for row, here in zip(seen["prompt"], visual, strict=True)], seen["prompt"]


def cosine(a: list[float], b: list[float]) -> float:
    norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm


def literal(rows: list[list[float]], relevance: list[float] | None, weight: float, count: int):
    """Tokens in the order in which maximal marginal relevance takes them."""
    everyone = range(len(rows))
    near = [[cosine(rows[i], rows[j]) for j in everyone] for i in everyone]
    if relevance is None:
        first = [-max(near[i][j] for j in everyone if j != i) for i in everyone]
        relevance = [0.0 for _ in everyone]
    else:
        first = relevance
    picked = [max(everyone, key=lambda i: (first[i], -i))]
    while len(picked) < count:
        gain = {
            i: weight * relevance[i] - (1 - weight) * max(near[i][j] for j in picked)
            for i in everyone
            if i not in picked
        }
        picked.append(max(gain, key=lambda i: (gain[i], -i)))
    return picked


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9, 1.0])
def test_equals_a_literal_loop(case: Case, weight: float) -> None:
    inputs = case.prompts.rows(1, 1)
    (features, *_), prompts = features_of(case, inputs)
    family, ids = family_of(case.model), inputs["input_ids"][0]
    visual = torch.stack(list(family.placeholders(ids[None], None).values())).any(0)[0]
    relevance = None
    if weight:
        behind = int(visual.nonzero().max()) + 1
        words = [case.model.get_input_embeddings()(one).tolist() for one in ids[behind:]]
        grid = visual.nonzero()[:, 0]
        cells = family.places(family.default_grid()) if family.reads_tower else slice(None)  # type: ignore[arg-type]
        tokens = prompts[0][grid[cells]].tolist()
        best = [max(cosine(token, word) for word in words) for token in tokens]
        low, high = min(best), max(best)
        relevance = [(value - low) / (high - low) for value in best]
    with prunus.prune(case.model, MMR(keep=5, weight=weight)) as run, torch.no_grad():
        case.model(**inputs)
    expected = literal(features.tolist(), relevance, weight, 5)
    assert run.trace[0].kept[0][0].tolist() == sorted(expected)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=f"weight={weight}: .*(from 0 to 1|a finite number)"):
        MMR(weight=weight)


def test_nothing_is_read_from_the_device_on_the_way() -> None:
    method = MMR(keep=4, weight=0.0)
    rows = torch.zeros(9, 5, device="meta")
    view = view_by_hand(4, Grid(1, 3, 3, (8, 8)), rows, sees=method.cuts(2)[0].sees)
    assert method.select(0, view).kept.shape == (1, 4)  # type: ignore[union-attr]


def test_only_relevance_looks_at_the_question() -> None:
    assert asks(MMR(weight=0.5))
    assert not asks(MMR(weight=0.0))


def test_relevance_is_that_of_each_image_and_its_own_question(case: Case) -> None:
    """Questions of different length, and images whose cosines lie in other ranges: scores of a
    batch are those of its rows."""
    inputs = case.prompts.rows(2, 1, text=2, seed=4)
    with prunus.prune(case.model, MMR(keep=5)) as run, torch.no_grad():
        case.model(**inputs)
    for row in range(2):
        alone = case.prompts.one(inputs, row, trim=True)
        with prunus.prune(case.model, MMR(keep=5)) as single, torch.no_grad():
            case.model(**alone)
        for image, scores in enumerate(run.trace[0].scores[row]):
            assert float(scores.min()) == 0.0 and float(scores.max()) == 1.0
            assert torch.allclose(scores, single.trace[0].scores[0][image], atol=1e-5)
            assert torch.equal(run.trace[0].kept[row][image], single.trace[0].kept[0][image])


def test_padding_behind_a_short_question_is_no_word(llava: Case) -> None:
    """The padded words of the shorter question are made very similar to one visual token."""
    inputs = llava.prompts.rows(1, 1, text=3)
    ids = inputs["input_ids"]
    features = llava.model.get_image_features(inputs["pixel_values"]).pooler_output
    with torch.no_grad():  # words that stand in front of the image are never part of a question
        for token in {int(one) for row in ids for one in row[:4]} | {100}:
            llava.model.get_input_embeddings().weight[token] = next(iter(features))[7]
    with prunus.prune(llava.model, MMR(keep=5)) as run, torch.no_grad():
        llava.model(**inputs)
        alone = llava.prompts.one(inputs, 0, trim=True)
    with prunus.prune(llava.model, MMR(keep=5)) as single, torch.no_grad():
        llava.model(**alone)
    assert torch.allclose(run.trace[0].scores[0][0], single.trace[0].scores[0][0], atol=1e-5)
