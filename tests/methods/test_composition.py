"""EvoPrune in the tower, then CLSE in the decoder: the grid comes back where it is needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Selection, View
from tests.support.facts import counts
from tests.support.literal.clse import best, literal_intensity, states_of
from tests.support.models import Case
from tests.support.runs import decoded, gap, plain, survivors


def test_scores_are_those_of_the_spread_grid_averaged_per_survivor(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, [EvoPrune(keep=0.5), CLSE(keep=5)]) as run:
        plain(case.model, inputs)
    first, second = run.trace
    assert (first.place, second.place, second.layer) == ("encoder", "decoder", 1)
    reference, current = states_of(case, inputs, first)
    grids = case.prompts.grids(inputs)
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            into = first.merged_into[row][image].tolist()
            cells = [places[index] for index in into]  # every cell shows its survivor
            values = literal_intensity(
                current[row, cells], reference[row, cells], grids[row][image], 0.1
            )
            kept = first.kept[row][image].tolist()
            averages = []
            for survivor in kept:
                own = [
                    value for value, index in zip(values, into, strict=True) if index == survivor
                ]
                averages.append(sum(own) / len(own))
            scores = second.scores[row][image]
            assert scores[kept].tolist() == pytest.approx(averages, abs=1e-5)
            assert int(scores.isnan().sum()) == len(places) - len(kept)
            chosen = [kept[place] for place in best(averages, 5)]
            assert second.kept[row][image].tolist() == chosen


@pytest.mark.parametrize("variant", ["paper", "hybrid", "released"])
def test_prefill_and_decoding_equal_the_oracles(case: Case, variant: Any) -> None:
    inputs = case.prompts.rows(2, 1)
    both = [EvoPrune(keep=0.5), CLSE(keep=6, variant=variant)]
    run, difference = decoded(case, both, inputs, 6)
    assert difference < 1e-4
    report = run.report()
    assert report["method"] == "evoprune + clse" and report["tokens"]["nominal"] == 6 * 1.5
    frames = [
        t * counts(EvoPrune(keep=0.5), h * w)[0]
        for sample in case.prompts.grids(inputs)
        for t, h, w in sample
    ]
    assert report["tokens"]["per_layer"][0] == sum(frames) / 2
    assert len(run.trace) == (4 if variant == "released" else 2)


def test_the_order_of_the_list_is_that_of_the_data(case: Case) -> None:
    inputs = case.prompts.rows(1)
    results = []
    for both in ([EvoPrune(keep=10), CLSE(keep=4)], [CLSE(keep=4), EvoPrune(keep=10)]):
        with prunus.prune(case.model, both) as run:
            results.append((plain(case.model, inputs), run.report()["tokens"]))
    assert torch.equal(results[0][0], results[1][0]) and results[0][1] == results[1][1]
    assert results[0][1]["nominal"] == 4


def test_a_composition_replays(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, [EvoPrune(keep=0.5), CLSE(keep=4)]) as run:
        expected = plain(case.model, inputs)
    with prunus.prune(case.model, prunus.Fixed.replay(run.trace)) as again:
        found = plain(case.model, inputs)
    assert gap(found, expected, survivors(case, inputs, run.trace)) < 1e-6
    for ours, theirs in zip(run.trace, again.trace, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.kept[0], theirs.kept[0], strict=True))


def test_a_selection_of_its_own_cannot_stand_behind_a_merge(llava: Case) -> None:
    class Whole(CLSE):
        def select(self, stage: int, view: View) -> Selection:
            return Selection(view.present[:, :3])

    prunus.prune(llava.model, Whole(keep=3))
    with pytest.raises(ValueError, match="makes its own selection.*behind evoprune"):
        prunus.prune(llava.model, [EvoPrune(keep=10), Whole(keep=3)])
