"""Methods that read the tower's features, behind another that merged or dropped tokens: they read
the features of the tokens that are there, at the places of the survivors, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import MMR, EvoPrune, Fixed, Method, OneShot, Random, Selection, Stepwise, View
from prunus.method import Cut
from prunus.method.signals import Features
from prunus.pruners.pooling import Pooling
from prunus.pruners.tome import ToMe
from prunus.pruners.visionzip import VisionZip
from prunus.selector.cost import selector_macs
from tests.methods.test_mmr import features_of as unmerged
from tests.methods.test_mmr import literal as literal_mmr
from tests.support.literal.stepwise import fitted, literal_orders
from tests.support.models import Case
from tests.support.oracles.merged import given, merged_tower
from tests.support.oracles.merged_windows import window_features
from tests.support.runs import plain

SELECTORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adaptive": (Stepwise(), {}),
    "fixed": (Stepwise(keep=3), {"seed": 2}),
    "one-shot": (OneShot(keep=3), {"seed": 1}),
}
MERGERS: dict[str, Method] = {"evoprune": EvoPrune(keep=0.5), "tome": ToMe(keep=0.6)}


def features_left(case: Case, inputs: dict[str, Tensor], entry: Any) -> list[list[Tensor]]:
    """``[row][image]``: features ``[n, D]`` of the tokens that a merge left, merged by hand."""
    parts: dict[str, Any] = {}
    if hasattr(case.model.model, "visual"):
        parts = {kind: own[0] for kind, own in window_features(case.model, inputs, entry).items()}
    found, number = [], 0
    for row, images in enumerate(entry.kept):
        found.append([])
        for image, kept in enumerate(images):
            if parts:
                kind, size = entry.kind[row][image], entry.grid[row][image].size
                found[-1].append(parts[kind][kept])
                parts[kind] = parts[kind][size:]
            else:
                one = inputs["pixel_values"][number : number + 1]
                choose = given(entry.steps[row][image])
                tokens, _ = merged_tower(case.model, one, choose, entry.by_size, entry.proportional)
                found[-1].append(torch.stack([tokens[index] for index in kept.tolist()]))
            number += 1
    return found


@pytest.mark.parametrize("before", MERGERS)
@pytest.mark.parametrize("name", SELECTORS)
@torch.no_grad()
def test_a_selector_picks_what_the_literal_one_picks_of_merged_features(
    case: Case, name: str, before: str
) -> None:
    method = fitted(case, SELECTORS[name][0], **SELECTORS[name][1])
    inputs = case.prompts.rows(2, 0, 1)
    with prunus.prune(case.model, [MERGERS[before], method]) as run:
        plain(case.model, inputs)
    first, second = run.trace
    left = features_left(case, inputs, first)
    orders = literal_orders(case, inputs, method, left=left)
    for row, images in enumerate(orders):
        for image, order in enumerate(images):
            wanted = sorted(first.kept[row][image][order].tolist())
            assert second.kept[row][image].tolist() == wanted
    assert any(
        set(second.kept[row][image].tolist()) != set(own[: len(orders[row][image])].tolist())
        for row, images in enumerate(first.kept)
        for image, own in enumerate(images)
    )  # it did choose


@torch.no_grad()
def test_mmr_picks_by_merged_features(case: Case) -> None:
    inputs = case.prompts.rows(1, 1)
    with prunus.prune(case.model, [EvoPrune(keep=0.5), MMR(keep=3, weight=0.0)]) as run:
        plain(case.model, inputs)
    first, second = run.trace
    for row, images in enumerate(features_left(case, inputs, first)):
        for image, rows in enumerate(images):
            order = literal_mmr(rows.tolist(), None, 0.0, 3)
            wanted = sorted(first.kept[row][image][order].tolist())
            assert second.kept[row][image].tolist() == wanted


@pytest.mark.parametrize("name", ["fixed", "one-shot"])
def test_a_selector_behind_one_that_drops_reads_what_is_left(case: Case, name: str) -> None:
    method = fitted(case, SELECTORS[name][0], **SELECTORS[name][1])
    inputs = case.prompts.rows(1, 1)
    with prunus.prune(case.model, [Random(keep=0.6, layer=None, seed=1), method]) as run:
        plain(case.model, inputs)
    first, second = run.trace
    with torch.no_grad():
        own, _ = unmerged(case, inputs)
    left = [[own[row][kept] for kept in images] for row, images in enumerate(first.kept)]
    for row, images in enumerate(literal_orders(case, inputs, method, left=left)):
        wanted = sorted(first.kept[row][0][images[0]].tolist())
        assert second.kept[row][0].tolist() == wanted


def test_the_report_counts_the_selector_on_what_is_left(llava: Case) -> None:
    inputs, method = llava.prompts.rows(1), fitted(llava, Stepwise(keep=3))
    totals = []
    for methods in ([EvoPrune(keep=0.5)], [EvoPrune(keep=0.5), method]):
        with prunus.prune(llava.model, methods) as run:
            plain(llava.model, inputs)
        totals.append(run.report())
    macs = selector_macs(method.loaded[0].config, 8, 6, 3)  # of 16 tokens 8 are left; 6 words
    alone, both = (one["flops"]["pruned"]["method"] for one in totals)
    assert both - alone == 2 * macs
    assert totals[1]["tokens"]["nominal"] == totals[1]["tokens"]["average"] == 3


def test_a_true_budget_behind_a_merge(case: Case) -> None:
    inputs = case.prompts.rows(2)
    method = fitted(case, OneShot(keep=4))
    with prunus.prune(case.model, [EvoPrune(keep=0.5), method], budget="true") as run:
        plain(case.model, inputs)
    assert run.report()["tokens"]["average"] == 4 * 2  # images


def test_more_than_is_left_keeps_what_is_left(case: Case) -> None:
    inputs = case.prompts.rows(1)
    with prunus.prune(case.model, [EvoPrune(keep=0.5), fitted(case, OneShot(keep=0.9))]) as run:
        plain(case.model, inputs)
    first, second = run.trace
    assert first.kept[0][0].tolist() == second.kept[0][0].tolist()


class Looks(Method):
    """Keeps everything and remembers the features."""

    name = "looks-at-features"

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], Tensor] = {}

    def cuts(self, depth: int) -> list[Cut]:
        return [Cut(None, (Features(),))]

    def counts(self, keep: Any, original: int, depth: int) -> None:
        return None

    def select(self, stage: int, view: View) -> Selection:
        self.seen |= dict(zip(view.owners, view[Features()], strict=True))
        return Selection.everything(view)


@pytest.mark.parametrize(
    "first",
    [Pooling(keep=4), Pooling(keep=4, space="tower"), VisionZip(keep=5, cls=False)],
    ids=str,
)
def test_features_of_new_tokens_are_the_same_sums(case: Case, first: Method) -> None:
    """Wherever new tokens were made, of states or of the tower's features."""
    inputs, looks = case.prompts.rows(1, 1), Looks()
    with prunus.prune(case.model, [first, looks]) as run:
        plain(case.model, inputs)
    with torch.no_grad():
        own, _ = unmerged(case, inputs)
    entry = run.trace[0]
    assert entry.mix is not None
    for row, images in enumerate(entry.kept):
        expected = own[row][images[0]].clone()
        places = {token: place for place, token in enumerate(images[0].tolist())}
        survivors, sources, weights = entry.mix[row][0]
        for token in set(survivors.tolist()):
            expected[places[token]] = 0
        for token, source, weight in zip(
            survivors.tolist(), sources.tolist(), weights.tolist(), strict=True
        ):
            assert source < entry.grid[row][0].size
            expected[places[token]] += weight * own[row][source]
        assert torch.allclose(looks.seen[row, 0], expected, atol=1e-5)


def test_a_replay_is_exact(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, [EvoPrune(keep=0.5), fitted(case, Stepwise())]) as run:
        expected = plain(case.model, inputs)
    with prunus.prune(case.model, Fixed.replay(run.trace)):
        found = plain(case.model, inputs)
    assert torch.allclose(found, expected, atol=1e-5)
