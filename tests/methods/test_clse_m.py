"""CLSE-M against a slow, literal reading of its steps: raters, scores, rank, clusters, order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import prunus
from prunus import Fixed
from prunus.errors import PrunusBudgetError
from prunus.method.budget import Budget
from prunus.pruners.clse_m import CLSEM, shared
from prunus.signals.recycling import centres
from tests.methods.test_clse import literal_gate
from tests.support import llava as llava_support
from tests.support import qwen as qwen_support
from tests.support.facts import counts
from tests.support.literal.clse import best, literal_intensity
from tests.support.literal.inside import Literal, check
from tests.support.literal.recycling import literal_raters, literal_recycled, literal_rest
from tests.support.llava import DEPTH, Prompts, llava_clip
from tests.support.models import Case
from tests.support.oracles.layered import Line
from tests.support.qwen import QwenPrompts, qwen
from tests.support.runs import decoded, gap, plain


def literal_rank(rows: list[list[float]]) -> int:
    """Singular values that are not rounding errors of single precision."""
    matrix = np.array(rows, dtype=np.float32)
    values = np.linalg.svd(matrix, compute_uv=False)
    least = max(values) * max(matrix.shape) * np.finfo(np.float32).eps
    return sum(1 for value in values if value > least)


def literal_shares(rank: int, total: int | None, there: int) -> tuple[int, int | None]:
    """Tokens that stay, and clusters (None: as many as there would be)."""
    if total is None:
        return min(rank, there), None
    stay = min(rank, total)
    while stay + centres(there - stay) < total:  # room for more
        stay += 1
    return stay, total - stay


def literal_clse_m(
    case: Case, inputs: dict[str, Tensor], method: CLSEM
) -> tuple[Callable[[], Literal], list[int]]:
    """The method, row by row; and the ranks that it found."""
    rows: Iterator[Any] = iter(case.prompts.grids(inputs))
    ranks: list[int] = []

    def literal() -> Literal:
        grids = next(rows)

        def one_image(
            line: Line, spots: list[list[int]], image: int
        ) -> tuple[list[int], list[int], dict[int, Tensor]]:
            places = spots[image]
            maps, tokens = line.maps[method.layer]
            words = literal_raters(line, places, spots)
            attention = [
                [
                    sum(float(head[tokens.index(word), tokens.index(place)]) for head in maps)
                    / len(maps)
                    for place in places
                ]
                for word in words
            ]
            mean = [sum(column) / len(words) for column in zip(*attention, strict=True)]
            states = line.states[[line.tokens.index(place) for place in places]]
            before = line.entered[method.layer][[tokens.index(place) for place in places]]
            change = literal_intensity(states, before, grids[image], method.cutoff)
            if method.factor == "gate":
                change = literal_gate(change, method.temperature)
            least = method.negligible * sum(mean) / len(mean)
            scores = [a * c if a >= least else 0.0 for a, c in zip(mean, change, strict=True)]
            ranks.append(literal_rank(attention))
            total = None if method.keep is None else counts(method, len(places), DEPTH)[0]
            if total == len(places):
                return places, [], {}
            stay, clusters = literal_shares(ranks[-1], total, len(places))
            kept = [places[slot] for slot in best(scores, stay)]
            rest = [place for place in places if place not in kept]
            if not rest:
                return kept, [], {}
            return kept, *literal_recycled(
                line, rest, dict(zip(places, scores, strict=True)), clusters
            )

        def cut(line: Line, spots: list[list[int]]) -> list[list[int]] | None:
            if line.layer != method.layer + 1:
                return None
            chosen = [one_image(line, spots, image) for image in range(len(spots))]
            closing = method.positions == "compact" and line.where.ndim == 1
            return literal_rest(line, spots, chosen, closing)

        return cut

    return literal, ranks


def large(name: str, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Images of about 100 tokens, a video of 120, so that several clusters are made."""
    torch.manual_seed(0)
    if name.startswith("qwen"):
        monkeypatch.setattr(qwen_support, "IMAGES", ((1, 16, 24), (1, 20, 20)))
        monkeypatch.setattr(qwen_support, "VIDEOS", ((3, 16, 10), (2, 12, 16)))
        kinds = ("video", "image") if name.endswith("video") else ("image",)
        return Case(name, qwen(), QwenPrompts(kinds))
    monkeypatch.setattr(llava_support, "SIDE", 80)
    monkeypatch.setattr(llava_support, "TOKENS", 100)
    return Case(name, llava_clip(), Prompts(0))


def equals(case: Case, method: CLSEM, inputs: dict[str, Tensor]) -> tuple[Any, list[int]]:
    literal, ranks = literal_clse_m(case, inputs, method)
    return check(case, method, literal, inputs), ranks


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("keep", [None, 0.5, 0.46])
@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl-video"])
def test_equals_the_steps(
    name: str, keep: float | None, positions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = large(name, monkeypatch)
    inputs = case.prompts.rows(2, 1, text=24)
    (entry,), ranks = equals(case, CLSEM(keep=keep, positions=positions), inputs)
    closed = name == "llava-clip" and positions == "compact"
    assert entry.layer == 2 and entry.compact == closed
    assert (entry.order is not None) == closed
    assert len(set(ranks)) > 1 and min(ranks) > 2  # images differ in their rank
    assert entry.mix is not None
    clusters = [len(set(image[0].tolist())) for sample in entry.mix for image in sample]
    assert max(clusters) > 1  # several, so that their order is tried


@pytest.mark.parametrize(
    "method",
    [
        CLSEM(layer=0),
        CLSEM(layer=2, factor="intensity", cutoff=0.3),
        CLSEM(negligible=0.9, temperature=1.0),
        CLSEM(keep=0.7, negligible=0.0, layer=0),
    ],
)
def test_options_equal_the_steps(method: CLSEM, monkeypatch: pytest.MonkeyPatch) -> None:
    case = large("qwen2.5-vl-video", monkeypatch)
    (entry,), _ = equals(case, method, case.prompts.rows(2, 1, text=9))
    assert entry.layer == method.layer + 1


def test_equals_the_steps_on_small_images(case: Case) -> None:
    for method in (CLSEM(), CLSEM(keep=0.5)):
        equals(case, method, case.prompts.rows(2, 1))


@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl-video"])
def test_decode_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = large(name, monkeypatch)
    for method in (CLSEM(), CLSEM(positions="compact")):
        _, difference = decoded(case, method, case.prompts.rows(2, 1), 10)
        assert difference < 1e-4


def test_replay_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    case = large("qwen2.5-vl-video", monkeypatch)
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, CLSEM()) as run:
        expected = plain(case.model, inputs)
    with prunus.prune(case.model, Fixed.replay(run.trace)) as again:
        found = plain(case.model, inputs)
    assert torch.equal(found, expected)
    assert str(again.trace[0].mix) == str(run.trace[0].mix)
    assert str(again.trace[0].merged_into) == str(run.trace[0].merged_into)


def test_the_trace_says_what_became_of_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    case = large("qwen2.5-vl-video", monkeypatch)
    inputs = case.prompts.rows(1, text=12)
    with prunus.prune(case.model, CLSEM()) as run:
        plain(case.model, inputs)
    (entry,) = run.trace
    assert entry.mix is not None and entry.merged_into is not None and entry.labels is not None
    (owner,), (kept,), ((into, of, weight),) = entry.merged_into[0], entry.kept[0], entry.mix[0]
    assert entry.labels[0] == ["merging"] and len(owner) == 120
    members = {one: (owner == one).nonzero().flatten().tolist() for one in kept.tolist()}
    recycled = [one for one, own in members.items() if len(own) > 1]
    assert set(recycled) <= set(into.tolist())
    for one in set(into.tolist()):
        assert of[into == one].tolist() == members[one]
        shares = weight[into == one].tolist()
        assert shares == pytest.approx([1 / len(shares)] * len(shares))  # a plain mean
    gone = int((owner == -1).sum())
    rest = len(owner) - (len(kept) - centres(len(owner) - _stay(run)))
    assert gone == rest - int(0.3 * rest) - 1


def _stay(run: Any) -> int:
    """Tokens that stayed by themselves, of the one that has no cluster of several or of its own."""
    kept = len(run.trace[0].kept[0][0])
    return next(k for k in range(kept + 1) if k + centres(120 - k) == kept)


@pytest.mark.parametrize("depth", [5, 12, 28, 32, 40])
@pytest.mark.parametrize("size", [16, 100, 576, 2048])
def test_averages_are_what_was_asked_for(depth: int, size: int) -> None:
    tried = 0
    for keep in range(1, size + 1, max(1, size // 37)):
        method = CLSEM(keep=keep)
        least = (2 * size + (depth - 2)) / depth
        if keep < least - 0.5:
            with pytest.raises(PrunusBudgetError, match="cannot average"):
                Budget([method], depth).counts(method, 1, size)
            continue
        tried += 1
        found = Budget([method], depth).counts(method, 1, size)
        assert found is not None
        average = (2 * size + (depth - 2) * found[0]) / depth
        assert abs(average - keep) <= 0.5
        for other in {max(1, found[0] - 1), found[0] + 1}:  # none is nearer
            assert (
                abs((2 * size + (depth - 2) * other) / depth - keep) >= abs(average - keep) - 1e-9
            )
    assert tried > 3


def test_the_papers_table() -> None:
    """2,048 tokens of a video, 194 per layer: rank 8 and 62 means come to that by themselves."""
    method = CLSEM(**CLSEM.presets["194"])
    assert method.positions == "compact" and [cut.layer for cut in method.cuts(32)] == [2]
    assert counts(method, 2048, 32) == (70,)
    assert pytest.approx(193.6, abs=0.03) == (2 * 2048 + 30 * 70) / 32
    assert shared(8, 70, 2048) == shared(8, None, 2048) == (8, 62)


@pytest.mark.parametrize("there", [2, 16, 100, 577])
@pytest.mark.parametrize("rank", [1, 3, 20, 90])
def test_every_total_is_met_and_recycled_ones_go_first(rank: int, there: int) -> None:
    whole = centres(there - min(rank, there))
    for total in range(1, there):
        stay, clusters = shared(rank, total, there)
        assert stay + clusters == total and stay >= min(rank, total)
        if stay > rank:
            assert clusters == centres(there - stay)  # all of them, before more tokens stay
        elif stay == rank:
            assert clusters <= whole
        else:
            assert clusters == 0 and stay == total
    adaptive = shared(rank, None, there)
    if sum(adaptive) < there:
        assert shared(rank, sum(adaptive), there) == adaptive
    assert shared(there, None, there) == (there, 0)


def test_where_the_rank_is_no_less_nothing_goes(
    llava: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = llava.prompts.rows(1)
    expected = plain(llava.model, inputs)
    monkeypatch.setattr(torch.linalg, "matrix_rank", lambda rows: torch.tensor(rows.shape[1]))
    with prunus.prune(llava.model, CLSEM()) as run, pytest.warns(UserWarning, match="clse-m"):
        found = plain(llava.model, inputs)
    assert run.trace == [] and not run.report()["pruned"]
    assert gap(found, expected) == 0.0


def test_a_setting_says_which_count_it_has(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    reports = []
    for method in (CLSEM(), CLSEM(keep=11), CLSEM(keep=1.0)):
        assert method.adaptive == (method.keep is None)
        with prunus.prune(llava.model, method) as run:
            plain(llava.model, inputs)
        reports.append(run.report()["tokens"])
    assert reports[0]["nominal"] is None and reports[1]["nominal"] == 11
    assert abs(reports[1]["average"] - 11) <= 0.5 and reports[2]["average"] == 16
    with pytest.raises(ValueError, match="clse-m has no keep"):
        prunus.prune(llava.model, CLSEM(), budget="true")


def test_counts_matrix_products(llava: Case) -> None:
    inputs = llava.prompts.rows(1, text=7)
    with prunus.prune(llava.model, CLSEM()) as run:
        plain(llava.model, inputs)
    stay = len(run.trace[0].kept[0][0]) - 1  # one cluster
    looks = 2 * 64 * (7 * 16 + 16 * (4 + 4))  # rows and raters; two spectra
    distances = (int(0.3 * (16 - stay)) + 1) ** 2 * 64
    rest = run.report()["flops"]["pruned"]["method"] / 2 - looks - distances
    assert rest in [raters**2 * 16 for raters in range(stay, 8)]  # for the rank


def test_refused(llava: Case) -> None:
    for params, message in (
        ({"layer": -1}, "layers count from 0"),
        ({"negligible": 2.0}, "must be in \\[0, 1\\]"),
        ({"cutoff": -1.0}, "must be in \\[0, 1\\]"),
        ({"temperature": 0.0}, "must be positive"),
        ({"keep": 0}, "keeps nothing"),
        ({"factor": "square"}, "choose gate or intensity"),
    ):
        with pytest.raises(ValueError, match=message):
            CLSEM(**params)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"cannot cut at layer {DEPTH}"):
        prunus.prune(llava.model, CLSEM(layer=DEPTH - 1))
    with pytest.raises(ValueError, match="needs the whole grid"):
        prunus.prune(llava.model, [Fixed([1, 2], layer=1), CLSEM()])
    inputs: dict[str, Any] = llava.prompts.rows(1)
    last = max(llava.prompts.spots(inputs["input_ids"])[0][0]) + 1
    inputs = {**inputs, **{n: inputs[n][:, :last] for n in ("input_ids", "attention_mask")}}
    before = plain(llava.model, inputs)
    with prunus.prune(llava.model, CLSEM()):
        with pytest.raises(ValueError, match="no text stands behind an image"):
            plain(llava.model, inputs)
    assert torch.equal(plain(llava.model, inputs), before)
