"""FastV against a slow, literal reading of its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus.method.budget import Budget
from prunus.pruners.fastv import FastV
from prunus.signals.topk import stable_topk
from tests.support.facts import counts
from tests.support.literal.clse import best
from tests.support.literal.inside import Literal, check, drop
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles.layered import Line
from tests.support.runs import plain


def literal_fastv(keep: Any, layer: int) -> Literal:
    def cut(line: Line, spots: list[list[int]]) -> list[list[int]] | None:
        if line.layer != layer:
            return None
        maps, tokens = line.maps[layer - 1]
        kept = []
        for places in spots:
            scores = []
            for place in places:
                total = 0.0
                for head in range(len(maps)):
                    total += float(maps[head, len(tokens) - 1, tokens.index(place)])
                scores.append(total / len(maps))
            count = keep if isinstance(keep, int) else int(keep * len(places))
            kept.append(best(scores, count))
        drop(line, spots, kept)
        return kept

    return cut


@pytest.mark.parametrize(("keep", "layer"), [(5, 2), (0.3, 1), (1, 3), (7, DEPTH - 1)])
def test_equals_the_formula(case: Case, keep: Any, layer: int) -> None:
    check(case, FastV(keep=keep, layer=layer), lambda: literal_fastv(keep, layer))


def test_scores_are_the_mean_over_heads_of_the_last_row(llava: Case) -> None:
    rows = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.3, 0.0, 0.4, 0.1]])
    mean = rows.mean(0)
    assert mean.tolist() == pytest.approx([0.2, 0.2, 0.3, 0.2])
    assert stable_topk(mean, 1).tolist() == [2]
    assert stable_topk(torch.tensor([0.2, 0.2, 0.3, 0.2]), 2).tolist() == [0, 2]
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, FastV(keep=3)) as run:
        plain(llava.model, inputs)
    llava.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = llava.model(**inputs, output_attentions=True).attentions[1]
    places = llava.prompts.spots(inputs["input_ids"])[0][0]
    expected = [sum(float(m[-1, p]) for m in maps[0]) / maps.shape[1] for p in places]
    assert run.trace[0].scores is not None
    assert run.trace[0].scores[0][0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("layer", "average"), [(2, (216, 156, 96)), (3, (228, 170, 112))], ids=["k2", "k3"]
)
def test_what_is_kept_behind_the_cut_is_not_the_average(
    layer: int, average: tuple[int, ...]
) -> None:
    for keep, expected in zip((192, 128, 64), average, strict=True):
        method = FastV(keep=keep, layer=layer)
        assert counts(method, 576, 32) == (keep,)
        assert (layer * 576 + (32 - layer) * keep) / 32 == expected


def test_a_true_budget_keeps_fewer() -> None:
    for layer, kept in ((2, (166, 98, 30)), (3, (152, 82, 11))):
        for keep, expected in zip((192, 128, 64), kept, strict=True):
            method = FastV(keep=keep, layer=layer)
            (found,) = Budget([method], 32, "true").counts(method, 1, 576) or ()
            assert abs(found - expected) <= 1
            assert abs((layer * 576 + (32 - layer) * found) / 32 - keep) <= 0.5


def test_named_settings() -> None:
    for name, keep in (("paper", 288), ("paper-k3", 288), ("hf", 144), ("192", 192)):
        assert counts(FastV(**FastV.presets[name]), 576, 32) == (keep,)  # type: ignore[arg-type]
    assert [FastV.presets[name]["layer"] for name in ("paper", "paper-k3", "hf")] == [2, 3, 3]
    for average, kept in ((192, 166), (128, 98), (64, 30)):
        method = FastV(**FastV.presets[f"equal-{average}"])  # type: ignore[arg-type]
        assert counts(method, 576, 32) == (kept,)
        assert abs((2 * 576 + 30 * kept) / 32 - average) <= 0.5


def test_refused(llava: Case) -> None:
    with pytest.raises(ValueError, match="some layer must have run before"):
        FastV(layer=0)
    with pytest.raises(ValueError, match=f"cannot cut at layer {DEPTH}"):
        prunus.prune(llava.model, FastV(layer=DEPTH))
