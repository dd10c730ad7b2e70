"""The ablations of CLSE's Fig. 5: inverted, residual norm, shift of the mean, no filter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, EvoPrune, Random
from prunus.grid import Grid
from prunus.method.signals import Attention, States
from tests.support.facts import asks, needs_grid
from tests.support.literal.change import literal
from tests.support.literal.clse import (
    best,
    first_stage,
    literal_intensity,
    states_and_attention,
    states_of,
)
from tests.support.models import Case
from tests.support.runs import plain

MOVES = ("residual", "mean")


def moved(kind: str, current: Tensor, reference: Tensor) -> list[float]:
    """The score of each token of one image ``[n, D]``, one by one."""
    pairs = zip(current.tolist(), reference.tolist(), strict=True)
    return [literal(now, then)[MOVES.index(kind)] for now, then in pairs]


@pytest.mark.parametrize(("reference", "layer"), [(0, 1), (2, 3)])
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("kind", MOVES)
def test_movement_of_each_token(
    case: Case, kind: Any, invert: bool, reference: int, layer: int
) -> None:
    inputs = case.prompts.rows(2, 1)
    hidden, _ = states_and_attention(case, inputs)
    method = CLSE(keep=5, score_type=kind, reference=reference, layers=layer, invert=invert)
    with prunus.prune(case.model, method) as run:
        plain(case.model, inputs)
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            states = hidden[layer][row, places], hidden[reference][row, places]
            sign = -1 if invert else 1
            expected = [sign * value for value in moved(kind, *states)]
            kept, scores = first_stage(run, row, image)
            assert scores == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert kept == best(scores, 5)
    assert run.report()["flops"]["pruned"]["method"] == 0


def test_inverted_evolution_keeps_the_lowest(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    hidden, _ = states_and_attention(case, inputs)
    with prunus.prune(case.model, CLSE(keep=5, invert=True)) as run:
        plain(case.model, inputs)
    grids = case.prompts.grids(inputs)
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            states = hidden[1][row, places], hidden[0][row, places]
            intensity = literal_intensity(*states, grids[row][image], 0.1)
            kept, scores = first_stage(run, row, image)
            assert scores == pytest.approx([-value for value in intensity], abs=1e-5)
            gone = [n for n in range(len(places)) if n not in kept]
            assert len(kept) == 5 and gone
            assert max(intensity[n] for n in kept) < min(intensity[n] for n in gone)


@pytest.mark.parametrize("kind", ["clse", "clse_attn", "attn", "residual", "mean"])
@pytest.mark.parametrize("variant", ["paper", "hybrid"])
def test_every_score_is_inverted_by_its_sign(llava: Case, variant: Any, kind: Any) -> None:
    inputs = llava.prompts.rows(1)
    tokens = len(llava.prompts.spots(inputs["input_ids"])[0][0])
    scores, kept = [], []
    for invert, keep in ((False, 5), (True, tokens - 5)):
        method = CLSE(keep=keep, variant=variant, score_type=kind, invert=invert)
        with prunus.prune(llava.model, method) as run:
            plain(llava.model, inputs)
        scores.append(run.trace[0].scores[0][0])
        kept.append(run.trace[0].kept[0][0].tolist())
    assert torch.equal(scores[0], -scores[1])
    assert sorted(kept[0] + kept[1]) == list(range(tokens))  # nothing ties: a partition


def test_equal_scores_go_to_the_lower_index_inverted_too(case: Case) -> None:
    inputs = case.prompts.rows(1)
    # a model whose layer 0 changes nothing: every score is 0
    layer = case.model.model.language_model.layers[0]
    for matrix in (layer.self_attn.o_proj, layer.mlp.down_proj):
        torch.nn.init.zeros_(matrix.weight)
    for kind in ("clse", *MOVES):
        for invert in (False, True):
            method: Any = CLSE(keep=4, score_type=kind, invert=invert)
            with prunus.prune(case.model, method) as run:
                plain(case.model, inputs)
            assert run.trace[0].kept[0][0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("score_type", [None, "attn", "residual"])
def test_the_released_stages_cannot_be_inverted(score_type: Any) -> None:
    with pytest.raises(ValueError, match="invert=True with variant='released'"):
        CLSE(variant="released", score_type=score_type, invert=True)


def test_an_unknown_score_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="clse, clse_attn, attn, residual, mean"):
        CLSE(score_type="sfr")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", MOVES)
def test_what_the_engine_is_told_of_the_movement_scores(kind: Any) -> None:
    method = CLSE(score_type=kind, reference=1, layers=3, trim_cache=True)
    (cut,) = method.cuts(32)
    assert (cut.layer, cut.sees, cut.trim_cache) == (3, (States(1),), True)
    assert not asks(method) and not needs_grid(method)
    assert method.macs(0, Grid(1, 24, 24, (336, 336)), 576, 4096) == 0
    released = CLSE(variant="released", score_type=kind)
    assert asks(released) and not needs_grid(released)
    seen = [(States(0),), (Attention(10),), (Attention(20),)]
    assert [cut.sees for cut in released.cuts(32)] == seen


def test_inversion_changes_nothing_else_that_the_engine_is_told() -> None:
    for kind in (None, "clse_attn", "attn"):
        method, inverted = (CLSE(score_type=kind, invert=invert) for invert in (False, True))
        assert method.cuts(32) == inverted.cuts(32)
        assert asks(method) == asks(inverted)
        assert needs_grid(method) == needs_grid(inverted)
        grid = Grid(1, 24, 24, (336, 336))
        assert method.macs(0, grid, 576, 4096) == inverted.macs(0, grid, 576, 4096)


@pytest.mark.parametrize("kind", MOVES)
def test_movement_is_scored_where_another_method_broke_the_grid(case: Case, kind: Any) -> None:
    inputs = case.prompts.rows(1)
    both = [Random(keep=9, layer=1), CLSE(keep=4, score_type=kind, reference=2, layers=3)]
    seen: list[Tensor] = []

    def note(module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.extend((args[0][0], output[0]))

    handle = case.model.model.language_model.layers[2].register_forward_hook(note)
    with prunus.prune(case.model, both) as run:
        plain(case.model, inputs)
    handle.remove()
    first, second = run.trace
    # In a row without padding, what is left keeps its order: visual tokens stand where they stood,
    # less those that went before them.
    places = case.prompts.spots(inputs["input_ids"])[0]
    gone = sorted(
        place
        for image, kept in zip(places, first.kept[0], strict=True)
        for n, place in enumerate(image)
        if n not in set(kept.tolist())
    )
    for image, own in enumerate(places):
        left = first.kept[0][image].tolist()
        spots = [own[n] - sum(place < own[n] for place in gone) for n in left]
        expected = moved(kind, seen[1][spots], seen[0][spots])
        scores = second.scores[0][image]
        assert scores[left].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert int(scores.isnan().sum()) == len(own) - len(left)
        assert second.kept[0][image].tolist() == [left[n] for n in best(scores[left].tolist(), 4)]


@pytest.mark.parametrize("kind", MOVES)
def test_behind_a_merge_survivors_are_scored_themselves(case: Case, kind: Any) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, [EvoPrune(keep=0.5), CLSE(keep=4, score_type=kind)]) as run:
        plain(case.model, inputs)
    first, second = run.trace
    reference, current = states_of(case, inputs, first)
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            left = first.kept[row][image].tolist()
            own = [places[n] for n in left]
            scores = second.scores[row][image][left].tolist()
            expected = moved(kind, current[row, own], reference[row, own])
            assert scores == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert second.kept[row][image].tolist() == [left[n] for n in best(scores, 4)]


def test_inversion_behind_a_merge_negates_the_averages(case: Case) -> None:
    inputs = case.prompts.rows(2)
    scores = []
    for invert in (False, True):
        both = [EvoPrune(keep=0.5), CLSE(keep=4, invert=invert)]
        with prunus.prune(case.model, both) as run:
            plain(case.model, inputs)
        scores.append(run.trace[1].scores[0][0])
    torch.testing.assert_close(scores[0], -scores[1], equal_nan=True)
