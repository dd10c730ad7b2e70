"""ToMe against a literal reading of its bipartite matching, block by block."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import EvoPrune
from prunus.grid import Grid
from prunus.method.signals import TowerKeys
from prunus.pruners.tome import ToMe
from tests.support.entering import entering, view_by_hand
from tests.support.facts import counts as budget
from tests.support.literal.tome import tome
from tests.support.models import Case, case_of
from tests.support.oracles.merged import Pairs, Seen, merged_tower
from tests.support.oracles.merged_windows import frames_of, merged_frame
from tests.support.reads import Reads
from tests.support.runs import gap, plain
from tests.support.towers import deep, prompt

VARIANTS = {
    "default": ToMe(keep=9),
    "few": ToMe(keep=2),
    "share": ToMe(keep=0.75),
    "r": ToMe(r=4),
    "r-more-than-half": ToMe(r=11),
    "sizes-not-counted": ToMe(keep=9, proportional=False),
}


def removed(method: ToMe, cls: bool) -> list[int]:
    """Of 36 tokens in six blocks."""
    bound = ToMe(keep=method.keep, r=method.r, cls=cls)
    count = None if method.r is not None else budget(method, 36)[0]
    return list(bound.merges(6, 36, count))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_merges_what_the_literal_matching_merges(kind: str, name: str) -> None:
    case, inputs, method = deep(kind), prompt(2), VARIANTS[name]
    cls, proportional = kind == "clip", method.proportional is not False
    run, states = entering(case, method, inputs)
    (entry,) = run.trace
    assert entry.proportional == proportional and entry.by_size
    gone = removed(method, cls)
    start, left = 2, 36 - sum(gone)
    for image in range(2):
        chosen: list[tuple[int, Pairs]] = []
        reference = tome(gone, cls)

        def choose(
            seen: Seen, chosen: list[Any] = chosen, reference: Any = reference
        ) -> Pairs | None:
            pairs = reference(seen)
            if pairs is not None:
                chosen.append((seen.block, pairs))
            return pairs  # type: ignore[no-any-return]

        pixels = inputs["pixel_values"][image : image + 1]
        with torch.no_grad():
            tokens, history = merged_tower(case.model, pixels, choose, True, proportional)
            own = torch.stack([tokens[n] for n in sorted(tokens) if n >= 0])
            wanted = case.model.model.multi_modal_projector(own[None])[0]
        steps = entry.steps[0][image]  # type: ignore[index]
        assert [block for block, _, _ in steps] == [block for block, _ in chosen]
        for (_, source, into), (_, pairs) in zip(steps, chosen, strict=True):
            ours = dict(zip(source.tolist(), into.tolist(), strict=True))
            assert ours == dict(zip(*pairs, strict=True))
        assert entry.kept[0][image].tolist() == sorted(history[-1]) and len(history[-1]) == left
        assert gap(states[0, start : start + left], wanted) < 1e-4
        start += left


def test_sizes_in_attention_change_what_follows() -> None:
    case, inputs = deep(), prompt(1)
    _, counted = entering(case, ToMe(keep=6), inputs)
    _, plainly = entering(case, ToMe(keep=6, proportional=False), inputs)
    assert gap(counted, plainly) > 1e-3


def test_numbers_of_every_block() -> None:
    def runs(keep: int) -> list[int]:
        return list(ToMe(keep=keep, cls=True).merges(23, 576, keep))

    assert runs(192) == [17] * 16 + [16] * 7
    assert runs(128) == [20] * 11 + [19] * 12
    assert runs(64) == [23] * 6 + [22] * 17
    for cls in (True, False):
        assert list(ToMe(r=16, cls=cls).merges(23, 576, None)) == [16] * 23
        # At most half of the tokens: CLS, or the odd one, stays over.
        assert list(ToMe(r=5, cls=cls).merges(5, 16, None)) == [5, 5, 3, 1, 1]
        assert list(ToMe(r=0, cls=cls).merges(3, 16, None)) == [0, 0, 0]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("keep", [20, 9, 5])
def test_evoprune_without_its_own_parts_is_the_same(kind: str, keep: int) -> None:
    case, inputs = deep(kind), prompt(2)
    evo = EvoPrune(
        keep=keep,
        schedule="mean",
        start=0,
        diversity=0.0,
        protect=0.0,
        order="append",
        parity="cls" if kind == "clip" else "tokens",
        proportional=True,
    )
    ours, states = entering(case, ToMe(keep=keep), inputs)
    theirs, expected = entering(case, evo, inputs)
    for image in range(2):
        into = [run.trace[0].merged_into[0][image] for run in (ours, theirs)]  # type: ignore[index]
        assert torch.equal(*into)
    assert torch.equal(states, expected)


@pytest.mark.parametrize("like", ["tome", "evoprune"])
def test_what_a_block_calls_does_not_grow_with_the_images(like: str) -> None:
    """One merging block more, which takes its part of what goes: so many operations of torch."""
    case = deep("clip")
    own: dict[str, Any] = {"protect": 0.5}  # each of its branches
    if like == "tome":
        own = {"protect": 0.0, "diversity": 0.0, "order": "append", "parity": "cls"}

    def calls(images: int, blocks: int) -> int:
        method = EvoPrune(keep=30, schedule="last", some=blocks, **own)
        with torch.no_grad(), prunus.prune(case.model, method, processor=False), Reads() as reads:
            case.model(**prompt(images))
        return reads.calls

    two, four = (calls(images, 3) - calls(images, 2) for images in (2, 4))
    assert two == four < (130 if like == "tome" else 185)


def test_the_published_example() -> None:
    """CLS, (1,0), (1,.1), (0,1), (.9,.2): row 2 goes into row 1; behind it CLS, rows 4, 1, 3."""
    keys = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.9, 0.2]])
    view = view_by_hand(1, Grid(1, 2, 2, (8, 8)), keys=keys, sees=(TowerKeys(),))
    answer = ToMe(keep=3, cls=True).merge(view)
    assert answer.pairs is not None and answer.carry is not None
    assert [part.tolist() for part in answer.pairs] == [[[1]], [[0]]]
    assert answer.kept.tolist() == [[0, 2, 3]] and answer.by_size  # type: ignore[union-attr]
    line = sorted((0, 2, 3), key=lambda token: int(answer.carry[0, token]))  # type: ignore[index]
    assert line == [3, 0, 2]


def test_on_qwen_frame_by_frame() -> None:
    for name in ("qwen2.5-vl", "qwen2.5-vl-video"):
        case = case_of(name)
        inputs = case.prompts.rows(2)
        run, _ = entering(case, ToMe(keep=4), inputs)
        (entry,) = run.trace
        assert not entry.proportional and entry.steps is not None and entry.merged_into is not None
        tower, found = case.model.model.visual, {}
        for kind, number, grid, pixels in frames_of(inputs, 2):
            gone = list(ToMe(keep=4, cls=False).merges(4, grid.size, 4))
            with torch.no_grad():
                tokens, history = merged_frame(tower, pixels, grid, tome(gone, False))
            own = found.setdefault((kind, number), [])
            first = len(own) // 4 * grid.size
            own += [first + token for token in sorted(tokens)]
            assert len(history[-1]) == 4
        for number, kind in enumerate(entry.kind[0]):
            index = entry.kind[0][:number].count(kind)
            assert entry.kept[0][number].tolist() == found[kind, index]


def test_keeping_everything_is_the_native_tower(case: Case) -> None:
    inputs = case.prompts.rows(1)
    expected = plain(case.model, inputs)
    for method in (ToMe(r=0), ToMe(keep=1.0), ToMe(r=5).neutral()):
        with prunus.prune(case.model, method) as run:
            assert torch.equal(plain(case.model, inputs), expected)
        assert not run.report()["pruned"]


def test_features_computed_before_are_refused(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with torch.no_grad():
        outside = llava.model.model.get_image_features(inputs["pixel_values"])
    ids = {"input_ids": inputs["input_ids"]}
    with prunus.prune(llava.model, ToMe(keep=5)), torch.no_grad():
        with pytest.raises(ValueError, match="tome acts inside the vision tower.*pass pixel"):
            llava.model(**ids, mm_encoder_outputs={"image": outside})


def test_what_cannot_be() -> None:
    case = deep()
    with pytest.raises(ValueError, match="3 of 16 visual tokens cannot be reached"):
        prunus.prune(case_of("llava-clip").model, ToMe(keep=3))
    prunus.prune(case.model, ToMe(keep=1))
    with pytest.raises(ValueError, match="takes none: leave it off"):
        prunus.prune(case_of("qwen2.5-vl").model, ToMe(keep=4, proportional=True))
    for params, words in (
        ({"r": -1}, "r=-1"),
        ({"keep": None}, "give one of them"),
        ({"keep": 0}, "keep=0"),
    ):
        with pytest.raises(ValueError, match=words):
            ToMe(**params)  # type: ignore[arg-type]
