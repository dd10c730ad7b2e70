"""DART against a slow, literal reading of its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Selection, View
from prunus.pruners import dart
from prunus.pruners.dart import DART
from tests.support.facts import counts
from tests.support.literal.inside import Literal, behind, check, drop, rotated
from tests.support.llava import DEPTH
from tests.support.models import Case, case_of
from tests.support.oracles.layered import Line


def largest(norms: dict[int, float], count: int) -> list[int]:
    return sorted(norms, key=lambda token: (-norms[token], token))[:count]


def cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    lengths = [sum(x * x for x in one.tolist()) ** 0.5 for one in (a, b)]
    return dot / (lengths[0] * lengths[1])


def literal_dart(keep: int, layer: int) -> Literal:
    def cut(line: Line, spots: list[list[int]]) -> list[list[int]] | None:
        if line.layer != layer:
            return None
        tokens = list(line.tokens)
        keys = rotated(line, layer - 1, line.entered[layer - 1], "k")
        norms = {
            token: sum(abs(value) for head in keys[slot].tolist() for value in head)
            for slot, token in enumerate(tokens)
        }
        normed = line.model.model.language_model.norm(line.states)
        states = dict(zip(tokens, normed, strict=True))
        kept = []
        for places in spots:
            own = largest({place: norms[place] for place in places}, 4)
            words = {word: norms[word] for word in behind(line, tokens, places, spots)}
            pivots = own + largest(words, 4)
            stays, pool = list(own), [place for place in places if place not in own]
            for pivot in pivots:
                like = {place: cosine(states[place], states[pivot]) for place in pool}
                least = sorted(pool, key=lambda place: (like[place], place))[: keep // 8]
                stays += least
                pool = [place for place in pool if place not in least]
            kept.append(sorted(places.index(place) for place in stays))
        drop(line, spots, kept)
        return kept

    return cut


@pytest.mark.parametrize(("keep", "layer"), [(5, 2), (8, 2), (11, 1), (9, 3)])
def test_equals_the_formula(case: Case, keep: int, layer: int) -> None:
    method = DART(keep=keep, layer=layer)
    norm = case.model.model.language_model.norm.weight  # ones would not change a cosine
    torch.nn.init.uniform_(norm, 0.0, 3.0)
    (entry,) = check(case, method, lambda: literal_dart(keep, layer))
    each = [len(kept) for sample in entry.kept for kept in sample]
    assert set(each) == {4 + 8 * (keep // 8)}
    assert entry.scores is not None  # norms: pivots are the largest


@pytest.mark.parametrize(
    ("keep", "kept", "average"), [(192, 196, 219.8), (128, 132, 159.8), (64, 68, 99.8)]
)
def test_published_budgets(keep: int, kept: int, average: float) -> None:
    assert counts(DART(keep=keep), 576, 32) == (kept,)
    assert (2 * 576 + 30 * kept) / 32 == pytest.approx(average, abs=0.06)


@pytest.mark.parametrize(
    ("preset", "kept", "average"),
    [("equal-192", 164, 189.8), ("equal-128", 100, 129.8), ("equal-64", 28, 62.3)],
)
def test_settings_that_compute_as_much_as_they_say(preset: str, kept: int, average: float) -> None:
    method = DART(**DART.presets[preset])  # type: ignore[arg-type]
    assert counts(method, 576, 32) == (kept,)
    assert (2 * 576 + 30 * kept) / 32 == pytest.approx(average, abs=0.06)
    nearer = [(2 * 576 + 30 * n) / 32 for n in (kept - 8, kept + 8)]
    target = int(preset.split("-")[1])
    assert all(abs(average - target) < abs(other - target) for other in nearer)
    assert counts(DART(**DART.presets["llava-next"]), 2880, 32) == (324,)  # type: ignore[arg-type]


def test_one_pivot_takes_what_is_least_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dart, "_IMAGE", 1)
    monkeypatch.setattr(dart, "_TEXT", 0)
    states = torch.tensor([[1.0, 0], [1, 0], [0, 1], [-1, 0]])
    norms = torch.tensor([9.0, 1, 1, 1])
    kept = dart._kept(norms, torch.zeros(0), states, torch.zeros(0, 2), 0, 2)
    assert kept.tolist() == [0, 3]


def test_a_pivot_does_not_take_what_another_took() -> None:
    """Four visual pivots along one axis and four words along the other: each takes its own."""
    axis = torch.eye(2)
    states = torch.cat([axis[:1].repeat(4, 1), -axis[:1].repeat(6, 1), -axis[1:].repeat(6, 1)])
    norms = torch.tensor([9.0, 8, 7, 6, *[1.0] * 12])
    words = torch.tensor([1.0, 5, 2, 4, 3])
    text = axis[1:].repeat(5, 1)
    kept = dart._kept(norms, words, states, text, len(words), 12)
    # One each: first those opposite the image's axis, then those opposite the text's.
    assert kept.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13]


def test_another_count_than_eight_each_is_still_met(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    for count in (1, 3, 7, 15):

        class Exactly(DART):
            def select(self, stage: int, view: View, count: int = count) -> Selection:
                object.__setattr__(view, "count", count)
                return super().select(stage, view)

        Exactly.__module__ = "elsewhere"
        with prunus.prune(llava.model, Exactly()) as run, torch.no_grad():
            llava.model(**inputs)
        assert len(run.trace[0].kept[0][0]) == count


def test_few_words_behind_the_image() -> None:
    case = case_of("llava-clip")
    inputs = case.prompts.rows(1, text=2)
    with prunus.prune(case.model, DART(keep=11)) as run, torch.no_grad():
        case.model(**inputs)
    assert len(run.trace[0].kept[0][0]) == 12


def test_refused(llava: Case) -> None:
    with pytest.raises(ValueError, match="some layer must have run before"):
        DART(layer=0)
    with pytest.raises(ValueError, match=f"cannot cut at layer {DEPTH}"):
        prunus.prune(llava.model, DART(layer=DEPTH))
