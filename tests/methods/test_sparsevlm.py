"""SparseVLM v1.5 against a slow, literal reading of its formulas."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Fixed
from prunus.pruners.sparsevlm import SparseVLM
from tests.support import llava as llava_support
from tests.support import qwen as qwen_support
from tests.support.facts import counts
from tests.support.literal.clse import best
from tests.support.literal.inside import Literal, check, number_of
from tests.support.literal.recycling import literal_raters, literal_recycled, literal_rest
from tests.support.llava import DEPTH, Prompts, llava_clip
from tests.support.models import Case
from tests.support.oracles.layered import Line
from tests.support.qwen import QwenPrompts, qwen
from tests.support.runs import decoded, gap, plain

#: Tokens kept of 576, with the clusters that the rest is recycled into, and their true average.
PUBLISHED = {
    192: ((300, 200, 110), (309, 204, 113), 206.5),
    128: ((303, 110, 36), (312, 117, 39), 145.4),
    96: ((238, 48, 26), (249, 55, 27), 114.1),
    64: ((66, 30, 17), (82, 32, 18), 82.3),
}


def literal_sparse(keep: int, layers: tuple[int, ...], recycle: bool = True) -> Literal:
    """With as many tokens kept as there are without recycling (see the schedules below)."""
    alone = SparseVLM(keep=keep / 576, recycle=False)
    raters: dict[int, list[int]] = {}

    def one_image(
        line: Line, spots: list[list[int]], image: int, stage: int
    ) -> tuple[list[int], list[int], dict[int, Tensor]]:
        """Places that are kept and those of cluster centres, in order, with their new states."""
        places = spots[image]
        if stage == 0:
            raters[image] = literal_raters(line, places, spots)
        there = [places[number] for number in number_of(line, places)]
        maps, tokens = line.maps[line.layer - 1]
        scores = []
        for place in there:
            total = 0.0
            for head in range(len(maps)):
                for rater in raters[image]:
                    total += float(maps[head, tokens.index(rater), tokens.index(place)])
            scores.append(total / len(maps) / len(raters[image]))
        wanted = counts(alone, len(places), DEPTH)[stage]
        kept = [there[slot] for slot in best(scores, wanted)]
        if not recycle:
            return kept, [], {}
        of = dict(zip(there, scores, strict=True))
        rest = [place for place in there if place not in kept]
        return kept, *literal_recycled(line, rest, of)

    def cut(line: Line, spots: list[list[int]]) -> list[list[int]] | None:
        if line.layer not in layers:
            return None
        stage = layers.index(line.layer)
        chosen = [one_image(line, spots, image, stage) for image in range(len(spots))]
        return literal_rest(line, spots, chosen, line.where.ndim == 1)

    return cut


def large(name: str, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A model whose images have 96 to 100 tokens, so that several clusters are made."""
    torch.manual_seed(0)
    if name == "qwen2.5-vl":
        monkeypatch.setattr(qwen_support, "IMAGES", ((1, 16, 24), (1, 20, 20)))
        return Case(name, qwen(), QwenPrompts())
    monkeypatch.setattr(llava_support, "SIDE", 80)
    monkeypatch.setattr(llava_support, "TOKENS", 100)
    return Case(name, llava_clip(), Prompts(0))


@pytest.mark.parametrize("recycle", [True, False])
@pytest.mark.parametrize("keep", [192, 64])
@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl"])
def test_equals_the_formula(
    name: str, keep: int, recycle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = large(name, monkeypatch)
    method = SparseVLM(keep=keep / 576, recycle=recycle)
    trace = check(case, method, lambda: literal_sparse(keep, (1, 2, 3), recycle))
    assert [entry.layer for entry in trace] == [1, 2, 3]
    line = name.startswith("llava")
    assert {entry.compact for entry in trace} == {line}
    assert {entry.order is not None for entry in trace} == {line and recycle}
    if recycle:
        assert trace[0].mix is not None
        clusters = [len(set(image[0].tolist())) for sample in trace[0].mix for image in sample]
        assert max(clusters) > 1  # several, so that their order is tried


def test_equals_the_formula_on_small_images(case: Case) -> None:
    method = SparseVLM(keep=192 / 576, layers=(1, 3, 4))
    check(case, method, lambda: literal_sparse(192, (1, 3, 4)))


@pytest.mark.parametrize("images", [(2, 1), (1,)])
@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl"])
def test_decode_steps(name: str, images: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    case = large(name, monkeypatch)
    _, difference = decoded(case, SparseVLM(keep=64 / 576), case.prompts.rows(*images), 10)
    assert difference < 1e-4


def test_replay_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    case = large("llava-clip", monkeypatch)
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, SparseVLM(keep=64 / 576)) as run:
        expected = plain(case.model, inputs)
    with prunus.prune(case.model, Fixed.replay(run.trace)) as again:
        found = plain(case.model, inputs)
    assert torch.equal(found, expected)
    for one, other in zip(run.trace, again.trace, strict=True):
        assert one.compact and other.compact
        assert str(one.kept) == str(other.kept) and str(one.mix) == str(other.mix)
        assert str(one.order) == str(other.order)
        assert str(one.merged_into) == str(other.merged_into)


def test_the_trace_says_what_became_of_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    case = large("llava-clip", monkeypatch)
    inputs = case.prompts.rows(1)
    with prunus.prune(case.model, SparseVLM(keep=192 / 576)) as run:
        plain(case.model, inputs)
    owner = list(range(100))  # of each original token, followed by hand; -1: gone
    for entry in run.trace:
        assert entry.mix is not None and entry.order is not None and entry.merged_into is not None
        kept = entry.kept[0][0].tolist()
        into, of, weight = (part.tolist() for part in entry.mix[0][0])
        share: dict[int, list[float]] = {}
        for one, parts in zip(into, weight, strict=True):
            share.setdefault(one, []).append(parts)
        for parts in share.values():  # a plain mean
            assert parts == pytest.approx([1 / len(parts)] * len(parts))
        went = dict(zip(of, into, strict=True))
        stays = {token: token for token in kept} | went
        owner = [stays.get(one, -1) if one >= 0 else -1 for one in owner]
        assert entry.merged_into[0][0].tolist() == owner
        order = entry.order[0][0].tolist()
        assert sorted(order) == kept and order[-len(share) :] and set(share) <= set(kept)
        assert set(owner) - {-1} == set(kept)


@pytest.mark.parametrize("keep", PUBLISHED)
def test_published_schedules(keep: int) -> None:
    alone, with_centres, average = PUBLISHED[keep]
    assert counts(SparseVLM(keep=keep), 576, 32) == with_centres
    assert counts(SparseVLM(keep=keep, recycle=False), 576, 32) == alone
    a, b, c = with_centres
    assert (3 * 576 + 4 * a + 9 * b + 16 * c) / 32 == pytest.approx(average, abs=0.06)
    assert [cut.layer for cut in SparseVLM().cuts(32)] == [3, 7, 16]
    assert SparseVLM(keep=keep / 576).presets[str(keep)] == {"keep": keep}
    there = 576
    for kept, total in zip(alone, with_centres, strict=True):
        gone = there - kept
        there = kept + int((int(0.3 * gone) + 1) / 10) + 1
        assert there == total


def test_between_published_budgets_counts_rise() -> None:
    found = [counts(SparseVLM(keep=keep), 576, 32) for keep in range(1, 577, 5)]
    # From 128 to 192 the first stage falls by three, as published.
    assert all(a[2] <= b[2] for a, b in itertools.pairwise(found))
    assert all(c[0] >= c[1] >= c[2] >= 1 for c in found)
    assert counts(SparseVLM(keep=576), 576, 32) == (576, 576, 576)


def test_one_word_rates_where_none_is_above_the_mean(llava: Case) -> None:
    inputs = llava.prompts.rows(1, text=1)
    with prunus.prune(llava.model, SparseVLM(keep=5, recycle=False)) as run:
        plain(llava.model, inputs)
    check(llava, SparseVLM(keep=192 / 576), lambda: literal_sparse(192, (1, 2, 3)), inputs=inputs)
    scores = run.trace[0].scores
    assert scores is not None and len(set(scores[0][0].tolist())) == 16  # of one row, not none


def test_raters_stay_those_of_their_image_when_groups_change(llava: Case) -> None:
    """Images that another method left uneven are looked at apart, and together later on; texts
    behind them are of different lengths."""
    few = Fixed([[list(range(10))], [list(range(2, 14))]], layer=None)
    check(
        llava,
        SparseVLM(keep=192 / 576, recycle=False),
        lambda: literal_sparse(192, (1, 2, 3), recycle=False),
        inputs=llava.prompts.rows(1, 1),
        before=[few],
    )


def test_an_image_within_its_budget_does_not_save_another() -> None:
    case = Case("qwen2.5-vl", qwen(), QwenPrompts())
    inputs = case.prompts.rows(2)
    with prunus.prune(case.model, SparseVLM(keep=20)) as run:
        plain(case.model, inputs)
    sizes = [len(places) for places in case.prompts.spots(inputs["input_ids"])[0]]
    assert sizes == [20, 24]
    kept = [[len(image) for image in entry.kept[0]] for entry in run.trace]
    assert [one[0] for one in kept] == [20] * len(kept) and kept[-1][1] < 24


def test_keeping_one_and_all(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, SparseVLM(keep=1)) as run:
        assert torch.isfinite(plain(case.model, inputs)).all()
    assert all(len(image) <= 2 for sample in run.trace[-1].kept for image in sample)
    expected = plain(case.model, inputs)
    with prunus.prune(case.model, SparseVLM(keep=1.0)) as run:
        assert gap(plain(case.model, inputs), expected) == 0.0
    assert run.trace == []


def test_thirty_percent_and_one() -> None:
    # 276 go of 576: 83 of them in 9 clusters.
    gone = 276
    assert int(0.3 * gone) + 1 == 83 and math.floor(83 / 10) + 1 == 9
    assert counts(SparseVLM(keep=192), 576, 32)[0] == 300 + 9


def test_refused(llava: Case) -> None:
    for layers in ((1, 2), (0, 1, 2)):
        with pytest.raises(ValueError, match="name three, from 1 on"):
            SparseVLM(layers=layers)
    with pytest.raises(ValueError, match=f"cannot cut at layer {DEPTH}"):
        prunus.prune(llava.model, SparseVLM(layers=(1, 2, DEPTH)))
    inputs: dict[str, Any] = llava.prompts.rows(1)
    last = max(llava.prompts.spots(inputs["input_ids"])[0][0]) + 1
    inputs = {**inputs, **{n: inputs[n][:, :last] for n in ("input_ids", "attention_mask")}}
    before = plain(llava.model, inputs)
    with prunus.prune(llava.model, SparseVLM(keep=5)):
        with pytest.raises(ValueError, match="no text stands behind an image"):
            plain(llava.model, inputs)
    assert torch.equal(plain(llava.model, inputs), before)
