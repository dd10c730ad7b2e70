"""FasterVLM against a literal reading, from the unmodified tower's own attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus.errors import PrunusError
from prunus.grid import Grid, Tiles, tile_order
from prunus.method.signals import TowerAttention
from prunus.pruners.fastervlm import FasterVLM
from prunus.signals.pieces import best_of_pieces, piece_shares, pieces_of
from tests.support.entering import entering, view_by_hand
from tests.support.facts import counts
from tests.support.families import SMALL, WIDE, encoded
from tests.support.family_invariants import INVARIANTS, case_of, hold, load
from tests.support.kinds.internvl import INTERNVL, TOKENS
from tests.support.literal.clse import best
from tests.support.literal.tower import best_of_each, looked, received_by_frames, share_of
from tests.support.models import case_of as tiny
from tests.support.towers import deep, prompt


@pytest.fixture(scope="module")
def internvl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(INTERNVL, tmp_path_factory.mktemp("model"))


def test_the_published_example() -> None:
    values = torch.tensor([0.1, 0.4, 0.4, 0.2])
    view = view_by_hand(2, Grid(1, 2, 2, (8, 8)), attention=values, sees=(TowerAttention(),))
    assert FasterVLM(keep=2).select(0, view).kept.tolist() == [[1, 2]]  # type: ignore[union-attr]


def test_published_budgets() -> None:
    for name, own in FasterVLM.presets.items():
        assert counts(FasterVLM(**own), 576) == (int(name),)
    assert {"432", "288", "144", "58", "29"} < set(FasterVLM.presets)
    assert counts(FasterVLM(), 576) == (144,)


@pytest.mark.parametrize("keep", [1, 5, 35])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_keeps_what_cls_attends_to_or_what_is_attended(kind: str, keep: int) -> None:
    case, inputs = deep(kind), prompt(2)
    run, _ = entering(case, FasterVLM(keep=keep), inputs)
    for image, (_, values) in enumerate(looked(case.model, inputs["pixel_values"])):
        assert run.trace[0].kept[0][image].tolist() == best(values, keep)
        assert run.trace[0].scores[0][image].tolist() == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize("per", ["tile", "input"])
def test_frames_of_a_video_keep_their_share(per: Any) -> None:
    case = tiny("qwen2.5-vl-video")
    inputs = case.prompts.rows(2)
    run, _ = entering(case, FasterVLM(keep=7, per=per), inputs)
    for kind, kept in zip(run.trace[0].kind[0], run.trace[0].kept[0], strict=True):
        frames = [own for _, own in received_by_frames(case.model, inputs)[kind, 0]]
        size = len(frames[0])
        if per == "input":
            wanted = best([value for own in frames for value in own], 7)
        else:
            picked = best_of_each(frames, 7)
            wanted = [n * size + token for n, own in enumerate(picked) for token in own]
        assert kept.tolist() == wanted


@pytest.mark.parametrize("per", ["tile", "input"])
def test_tiles_keep_their_share_whether_or_not_it_is_known_where_they_lie(
    per: Any, internvl: tuple[Any, Any]
) -> None:
    model, processor = internvl
    inputs = encoded(INTERNVL, processor, "I and I?")
    told = {**inputs, "image_sizes": torch.tensor([WIDE[::-1], SMALL[::-1]])}
    tiles = []
    for _, patches in looked(model, inputs["pixel_values"], -1):
        square = torch.tensor(patches).view(3, 2, 3, 2)  # patches of a token are joined
        tiles.append(square.mean((1, 3)).flatten().tolist())
    found = []
    for given in (inputs, told):
        with prunus.prune(model, FasterVLM(keep=8, per=per)) as run, torch.no_grad():
            found.append(model(**given).logits)
        start = 0
        for grid, kept in zip(run.trace[0].grid[0], run.trace[0].kept[0], strict=True):
            own = tiles[start : start + grid.pieces]
            start += grid.pieces
            if per == "input":
                wanted = best([value for tile in own for value in tile], 8)
            else:
                wanted = [
                    n * TOKENS + token
                    for n, tile in enumerate(best_of_each(own, 8))
                    for token in tile
                ]
            order = tile_order(grid)
            assert kept.tolist() == sorted(order[token] for token in wanted)
        assert start == len(tiles) > 4
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_on_tiles(name: str, internvl: tuple[Any, Any]) -> None:
    hold(name, case_of(INTERNVL, internvl, "I"), FasterVLM(keep=8))


def test_pieces_of_unequal_size_of_which_some_is_gone() -> None:
    grid = Tiles((Grid(1, 4, 6, (8, 8), seams=((1,), (2, 4))), Grid(1, 2, 2, (8, 8))))
    sizes = [2, 2, 2, 6, 6, 6, 4]
    generator = torch.Generator().manual_seed(0)
    present = torch.stack([torch.arange(28), torch.arange(28)])
    scores = torch.rand(2, 28, generator=generator).round(decimals=1)  # ties
    piece = pieces_of(grid, present)[0].tolist()
    assert [piece.count(n) for n in range(7)] == sizes
    for count in (1, 5, 13, 27, 28):
        shared = piece_shares(grid, present, count)
        assert shared == [share_of(count, sizes)] * 2
        kept = best_of_pieces(scores, grid, present, shared)
        for own, row in zip(kept.tolist(), scores.tolist(), strict=True):
            wanted = []
            for n in range(7):
                places = [place for place in range(28) if piece[place] == n]
                chosen = best([row[place] for place in places], shared[0][n])
                wanted += [places[token] for token in chosen]
            assert own == sorted(wanted)
    # What a piece has no more is made up for by the others.
    left = torch.stack([torch.arange(12, 28), torch.arange(16)])
    for own, here in zip(piece_shares(grid, left, 14), left.tolist(), strict=True):
        there = [sum(piece[token] == n for token in here) for n in range(7)]
        assert sum(own) == 14 and all(a <= b for a, b in zip(own, there, strict=True))


def test_scores_that_are_no_numbers_are_refused() -> None:
    values = torch.tensor([0.1, float("nan"), 0.4, 0.2])
    for grid in (Grid(1, 2, 2, (8, 8)), Grid(2, 1, 2, (8, 8))):
        view = view_by_hand(2, grid, attention=values, sees=(TowerAttention(),))
        with pytest.raises(PrunusError, match="fastervlm.score returned NaN"):
            FasterVLM(keep=2).select(0, view)


@pytest.mark.parametrize(("params", "words"), [({"keep": 0}, "keep=0"), ({"per": "odd"}, "per")])
def test_bad_parameters(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FasterVLM(**params)
