"""Answers that make no sense are refused before anything changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import prunus
from prunus import Cut, Fixed, Method, Selection
from prunus.errors import PrunusError
from tests.support.footprint import footprint
from tests.support.models import Case

Answer = Callable[[prunus.View], Selection]


@dataclass(frozen=True)
class Answers(Method):
    """Answers what it is told to."""

    answer: Any = None
    layer: Any = 2
    compact: bool = False

    def cuts(self, depth: int) -> list[Cut]:
        return [Cut(self.layer, compact=self.compact)]

    def choose(self, stage: int, views: Any) -> Any:
        found = [self.answer(view) for view in views]
        return found if found[0] is not None else []

    def select(self, stage: int, view: prunus.View) -> Selection:
        found: Selection = self.answer(view)
        return found


Answers.name = "answers"  # not in its body: it is nothing to be listed


def rows(*indices: int) -> Callable[[prunus.View], torch.Tensor]:
    return lambda view: torch.tensor(indices).expand(len(view.owners), -1)


def kept(*indices: int, **more: Callable[[prunus.View], Any]) -> Answer:
    """Of every image the same, and what else is said."""
    return lambda view: Selection(
        rows(*indices)(view), **{name: make(view) for name, make in more.items()}
    )


def each(make: Callable[[], Any]) -> Callable[[prunus.View], list[Any]]:
    return lambda view: [make() for _ in view.owners]


def into(*pairs: tuple[int, int], rest: int = 0) -> Callable[[prunus.View], torch.Tensor]:
    """Tokens 0 to 3 stay; others go into ``rest``, but for ``pairs``."""

    def make(view: prunus.View) -> torch.Tensor:
        found = torch.full(view.present.shape, rest)
        found[:, :4] = torch.arange(4)
        for token, target in pairs:
            found[:, token] = target
        return found

    return make


def mix(columns: int, hole: float = 0.0) -> Callable[[prunus.View], list[torch.Tensor]]:
    def make() -> torch.Tensor:
        found = torch.zeros(4, columns)
        found[torch.arange(4), torch.arange(4)] = 1.0
        found[1, -1] = hole
        return found

    return each(make)


FOUR = (0, 1, 2, 3)
WRONG: dict[str, tuple[Answer, str]] = {
    "not-ascending": (kept(3, 1, 2), "kept must be ascending indices, each once, into the 16"),
    "twice": (kept(1, 1, 2), "kept must be ascending"),
    "beyond": (kept(0, 16), r"0 to 15"),
    "negative": (kept(-1, 3), "kept must be ascending"),
    "no-indices": (
        lambda view: Selection(torch.ones(view.present.shape, dtype=torch.bool)),
        "kept has dtype torch.bool",
    ),
    "shares": (lambda view: Selection(torch.rand(view.present.shape)), "kept has dtype torch.fl"),
    "one-image": (lambda view: Selection(torch.tensor([[1, 2]])), "kept is for 1 images, .* has 3"),
    "ragged": (
        lambda view: Selection([torch.tensor([1]), torch.tensor([2, 1]), torch.tensor([3])]),
        "kept must be ascending",
    ),
    "no-selection": (lambda view: None, "returned 0 selections for 1 views"),  # type: ignore[arg-type, return-value]
    "scores": (kept(*FOUR, scores=lambda view: torch.zeros(3, 15)), r"scores have shape \(3, 15\)"),
    "labels": (kept(*FOUR, labels=lambda view: ["a"]), "labels is for 1 images"),
    "order-others": (kept(*FOUR, order=each(lambda: torch.tensor([0, 1, 2, 4]))), "order and kept"),
    "order-twice": (kept(*FOUR, order=each(lambda: torch.tensor([0, 1, 2, 2]))), "order and kept"),
    "order-inside": (kept(*FOUR, order=each(lambda: torch.tensor([3, 2, 1, 0]))), "reorders token"),
    "into-gone": (kept(*FOUR, into=into((9, 5))), "into names tokens that are not kept"),
    "into-beyond": (kept(*FOUR, into=into((9, 99))), "into names tokens that are not kept"),
    "into-not-itself": (kept(*FOUR, into=into((2, 1))), "every kept one itself"),
    "into-short": (kept(*FOUR, into=each(lambda: torch.zeros(3).long())), "for each of the 16"),
    "weights-short": (
        kept(*FOUR, into=into(), weights=lambda view: torch.ones(3, 4)),
        "weights must be one finite number for each of the 16",
    ),
    "weights-nan": (
        kept(*FOUR, into=into(), weights=lambda view: torch.full((3, 16), torch.nan)),
        "weights must be one finite",
    ),
    "mix-narrow": (kept(*FOUR, mix=mix(15)), r"mix has shape \(4, 15\) for 4 tokens made of 16"),
    "mix-deep": (kept(0, 1, mix=mix(16)), r"mix has shape \(4, 16\) for 2 tokens"),
    "mix-nan": (kept(*FOUR, mix=mix(16, torch.nan)), "mix holds NaN or infinity"),
    "mix-endless": (kept(*FOUR, mix=mix(16, torch.inf)), "mix holds NaN or infinity"),
    "mix-of-a-summary": (kept(*FOUR, mix=mix(17, 1.0)), "made of the CLS feature"),
}


@pytest.mark.parametrize("layer", [None, 2])
@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_makes_no_sense(llava: Case, name: str, layer: int | None) -> None:
    if name == "order-inside" and layer is None:
        pytest.skip("before the language model tokens may be read in another order")
    answer, message = WRONG[name]
    inputs = llava.prompts.rows(1, 2)
    plain, before = _run(llava.model, inputs), footprint(llava.model)
    run = prunus.prune(llava.model, Answers(answer, layer))
    with run, pytest.raises(PrunusError, match=message):
        _run(llava.model, inputs)
    assert torch.equal(_run(llava.model, inputs), plain)
    assert footprint(llava.model) == before
    with run:  # the next prompt is one like any other
        with pytest.raises(PrunusError, match=message):
            _run(llava.model, inputs)
        text = _run(llava.model, llava.prompts.rows(0))
    assert torch.equal(text, _run(llava.model, llava.prompts.rows(0)))


@pytest.mark.parametrize("layer", [None, 2])
def test_answers_that_make_sense(llava: Case, layer: int | None) -> None:
    """The same in their right forms: none of the refusals above is of too much."""
    inputs = llava.prompts.rows(1, 2)
    some: list[Answer] = [
        kept(*FOUR, into=into()),
        kept(*FOUR, into=into(rest=-1)),
        kept(*FOUR, into=into(), weights=lambda view: torch.rand(3, 16)),
        kept(*FOUR, mix=mix(16, 0.5)),
        kept(*FOUR, mix=mix(17)),
        lambda view: Selection([torch.tensor([1]), torch.tensor([1, 2]), torch.arange(0)]),
    ]
    if layer is None:
        some.append(kept(*FOUR, order=each(lambda: torch.tensor([3, 0, 2, 1]))))
    for answer in some:
        with prunus.prune(llava.model, Answers(answer, layer)) as run:
            assert bool(_run(llava.model, inputs).isfinite().all())
        assert len(run.trace) == 1


def test_merging_beside_a_row_of_text_alone(llava: Case) -> None:
    inputs = llava.prompts.rows(1, 0)
    method = Answers(kept(*FOUR, into=into()))
    with prunus.prune(llava.model, method) as run:
        both = _run(llava.model, inputs)
    assert run.trace[0].kept[1] == []
    valid = inputs["attention_mask"][1].bool()
    alone = _run(llava.model, llava.prompts.one(inputs, 1))
    assert float((both[1][valid] - alone[0][valid]).abs().max()) < 2e-5


def _run(model: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    return logits


@pytest.mark.parametrize("layer", [None, 2])
@pytest.mark.parametrize("how", ["mix", "weights"])
def test_a_survivor_that_is_made_of_nothing_is_replayed(llava: Case, layer: Any, how: str) -> None:
    inputs = llava.prompts.rows(1)

    def answer(view: prunus.View) -> Selection:
        groups, count = view.present.shape
        kept = torch.arange(0, count, 2).expand(groups, -1)
        if how == "mix":
            mix = torch.eye(count)[kept[0]]
            mix[0] = 0.0
            return Selection(kept, mix=[mix] * groups)
        into = torch.arange(count) // 2 * 2
        weights = torch.ones(groups, count)
        weights[:, :2] = 0.0
        return Selection(kept, into=into.expand(groups, -1), weights=weights)

    with prunus.prune(llava.model, Answers(answer, layer)) as run, torch.no_grad():
        expected = llava.model(**inputs).logits
    with prunus.prune(llava.model, Fixed.replay(run.trace)), torch.no_grad():
        assert torch.equal(llava.model(**inputs).logits, expected)


@pytest.mark.parametrize("how", ["mix", "into"])
def test_nothing_stays_and_nothing_is_made(llava: Case, how: str) -> None:
    def answer(view: prunus.View) -> Selection:
        groups, count = view.present.shape
        none = torch.zeros(groups, 0, dtype=torch.long)
        if how == "mix":
            return Selection(none, mix=[torch.zeros(0, count)] * groups)
        return Selection(none, into=torch.full((groups, count), -1))

    with prunus.prune(llava.model, Answers(answer)) as run, torch.no_grad():
        assert llava.model(**llava.prompts.rows(1)).logits.isfinite().all()
    assert run.report()["tokens"]["kept"] == 0
