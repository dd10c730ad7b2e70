"""HiRED against a literal reading, from the unmodified tower's own attention."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

import prunus
from prunus.errors import PrunusError
from prunus.grid import Grid, Tiles, tile_order
from prunus.method.signals import TowerAttention
from prunus.pruners.fastervlm import FasterVLM
from prunus.pruners.hired import HiRED
from tests.support.entering import entering, view_by_hand
from tests.support.facts import counts
from tests.support.families import LLAVA_NEXT, PINPOINTS, SMALL, TILE, WIDE, encoded
from tests.support.family_invariants import INVARIANTS, case_of, hold, load
from tests.support.kinds.internvl import INTERNVL, TOKENS
from tests.support.literal.clse import best
from tests.support.literal.tower import looked
from tests.support.models import case_of as tiny
from tests.support.real_prompts import packed_numbers
from tests.support.towers import deep, prompt

TWO_BY_TWO = Tiles((Grid(1, 4, 4, (8, 8)), Grid(1, 8, 8, (8, 8), seams=((4,), (4,)))))


@pytest.fixture(scope="module")
def next_(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(LLAVA_NEXT, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def internvl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(INTERNVL, tmp_path_factory.mktemp("model"))


def shared(count: int, weights: list[int], room: list[int]) -> list[int]:
    """In proportion, rounded down, the rest to the largest remainders; what is more than there is
    room for goes to the others in the same way, where none counts alike."""
    found, open_ = [0] * len(room), [n for n in range(len(room)) if room[n]]
    while open_:
        total = sum(weights[n] for n in open_)
        own = {n: weights[n] if total else 1 for n in open_}
        exact = {n: count * own[n] / sum(own.values()) for n in open_}
        full = [n for n in open_ if exact[n] >= room[n] - 1e-9]
        if not full:
            for n in open_:
                found[n] = int(exact[n] + 1e-9)
            line = sorted(open_, key=lambda n: (found[n] - exact[n], n))
            for n in line[: count - sum(found[n] for n in open_)]:
                found[n] += 1
            return found
        for n in full:
            found[n], count = room[n], count - room[n]
        open_ = [n for n in open_ if n not in full]
    return found


def literal(
    last: list[list[float]],
    first: list[list[float]],
    there: list[list[int]],
    shape: tuple[int, int],
    keep: int,
    alpha: float,
    fix: bool,
) -> list[list[int]]:
    """Which cells of each tile stay. Tile 0 is the overview; ``there`` are the cells that are not
    padding; tiles lie in ``shape``, down and across."""
    size, (down, across) = len(last[0]), shape
    side = int(size**0.5)
    room = [len(own) for own in there[1:]]
    rest = min(keep - min(int(keep * alpha), size), sum(room))
    most = best(first[0], int(size * (1 - alpha)))
    cells = [0] * (down * across)
    for token in most:
        run = token * down * across // size
        row, col = token // side * down // side, token % side * across // side
        cells[row * across + col if fix else run] += 1
    budgets = [keep - rest, *shared(rest, cells, room)]
    found = []
    for own, scores, budget in zip(there, last, budgets, strict=True):
        chosen = best([scores[cell] for cell in own], budget)
        found.append([own[n] for n in chosen])
    return found


def shown(first: Tensor, last: Tensor, grid: Any, keep: int) -> Any:
    """A view whose tower attends as given in its first and last block."""
    sees = (TowerAttention(), TowerAttention(block=0))
    view = view_by_hand(keep, grid, attention=last, sees=sees)

    def block(number: int | None) -> Any:
        return SimpleNamespace(attention=lambda rows: (last if number is None else first)[None])

    return dataclasses.replace(view, source=SimpleNamespace(block=block))  # type: ignore[arg-type]


def per_tile(answer: Any, grid: Any) -> list[int]:
    kept = set(answer.kept[0].tolist())
    order = tile_order(grid)
    return [sum(order[n] in kept for n in range(start, start + 16)) for start in range(0, 80, 16)]


def test_the_published_example() -> None:
    first = torch.zeros(80)
    first[[0, 1, 4, 5]] = 1.0
    last = torch.rand(80, generator=torch.Generator().manual_seed(0))
    for fix, cells in ((False, [2, 2, 0, 0]), (True, [4, 0, 0, 0])):
        answer = HiRED(keep=16, alpha=0.75, fix_cells=fix).select(
            0, shown(first, last, TWO_BY_TWO, 16)
        )
        assert per_tile(answer, TWO_BY_TWO) == [12, *cells]


def test_what_nobody_can_take_goes_to_others() -> None:
    """All counts in one cell, which is full; nothing to count; more than the overview has."""
    first = torch.zeros(80)
    first[:4] = 1.0  # one run
    last = torch.rand(80, generator=torch.Generator().manual_seed(0))
    for keep, alpha, wanted in (
        (40, 0.75, [16, 16, 3, 3, 2]),
        (24, 1.0, [16, 2, 2, 2, 2]),
        (16, 1.0, [16, 0, 0, 0, 0]),
        (76, 0.1, [12, 16, 16, 16, 16]),
    ):
        method = HiRED(keep=keep, alpha=alpha)
        found = per_tile(method.select(0, shown(first, last, TWO_BY_TWO, keep)), TWO_BY_TWO)
        assert sum(wanted) == keep and found == wanted


@pytest.mark.parametrize("keep", [9, 20, 40])
@pytest.mark.parametrize(("alpha", "fix"), [(0.5, False), (0.5, True), (0.2, False), (1.0, False)])
def test_tiles_and_overview_of_llava_next(
    keep: int, alpha: float, fix: bool, next_: tuple[Any, Any]
) -> None:
    model, processor = next_
    inputs = encoded(LLAVA_NEXT, processor, "aI what I is?")
    with prunus.prune(model, HiRED(keep=keep, alpha=alpha, fix_cells=fix)) as run, torch.no_grad():
        model(**inputs)
    for image, size in enumerate((WIDE, SMALL)):
        shape = get_anyres_image_grid_shape(size[::-1], PINPOINTS, TILE)
        tiles = 1 + shape[0] * shape[1]
        pixels = inputs["pixel_values"][image][:tiles]
        last, first = ([own for _, own in looked(model, pixels, at)] for at in (-2, 0))
        numbers = [int(number) for number in packed_numbers(model, size[::-1]) if number >= 0]
        there = [[number % 16 for number in numbers if number // 16 == n] for n in range(tiles)]
        assert all(there) and len(there[0]) == 16
        kept = literal(last, first, there, shape, keep, alpha, fix)
        chosen = {n * 16 + cell for n, own in enumerate(kept) for cell in own}
        wanted = [token for token, number in enumerate(numbers) if number in chosen]
        assert run.trace[0].kept[0][image].tolist() == wanted and len(wanted) == keep


def test_a_thumbnail_is_an_overview(internvl: tuple[Any, Any]) -> None:
    model, processor = internvl
    inputs = encoded(INTERNVL, processor, "I and I?")
    told = {**inputs, "image_sizes": torch.tensor([WIDE[::-1], SMALL[::-1]])}

    def tokens(block: int) -> list[list[float]]:
        return [
            torch.tensor(own).view(3, 2, 3, 2).mean((1, 3)).flatten().tolist()
            for _, own in looked(model, inputs["pixel_values"], block)
        ]

    for fix, givens in ((False, (inputs, told)), (True, (told,))):
        for given in givens:
            last, first = tokens(-1), tokens(0)
            with prunus.prune(model, HiRED(keep=14, fix_cells=fix)) as run, torch.no_grad():
                model(**given)
            for image, kept in enumerate(run.trace[0].kept[0]):
                grid = run.trace[0].grid[0][image]
                count = grid.pieces
                own = [[tiles[count - 1], *tiles[: count - 1]] for tiles in (last, first)]
                last, first = last[count:], first[count:]
                shape = 1, count - 1  # where nobody knows it
                if given is told:
                    down, across = grid.parts[0].seams
                    shape = len(down) + 1, len(across) + 1
                there = [list(range(TOKENS))] * count
                overview, *others = literal(own[0], own[1], there, shape, 14, 0.5, fix)
                chosen = [*others, overview]
                numbers = [n * TOKENS + cell for n, tile in enumerate(chosen) for cell in tile]
                assert kept.tolist() == sorted(tile_order(grid)[number] for number in numbers)
    with prunus.prune(model, HiRED(keep=14, fix_cells=True)), torch.no_grad():
        with pytest.raises(PrunusError, match="how they are arranged.*image_sizes"):
            model(**inputs)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_without_tiles_it_is_attention_of_cls(kind: str) -> None:
    case, inputs = deep(kind), prompt(2)
    run, _ = entering(case, HiRED(keep=0.2), inputs)
    for image, (_, values) in enumerate(looked(case.model, inputs["pixel_values"])):
        assert run.trace[0].kept[0][image].tolist() == best(values, int(36 * 0.2))


def test_on_videos_each_frame_has_its_share() -> None:
    case = tiny("qwen2.5-vl-video")
    inputs = case.prompts.rows(2)
    found = [entering(case, method, inputs)[0] for method in (HiRED(keep=7), FasterVLM(keep=7))]
    kept = [[own.tolist() for own in run.trace[0].kept[0]] for run in found]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    "name",
    [
        "identity_at_the_neutral_setting",
        "prefill_equals_the_masked_full_length_run",
        "every_decode_step_equals_the_masked_full_length_run",
        "beams_score_as_the_oracle_does",
        "rows_of_a_batch_equal_the_rows_alone",
    ],
)
def test_invariants_on_tiles(name: str, next_: tuple[Any, Any]) -> None:
    assert name in INVARIANTS
    hold(name, case_of(LLAVA_NEXT, next_, "I"), HiRED(keep=12))


def test_published_settings() -> None:
    paper = HiRED(**HiRED.presets["paper"])
    assert paper == HiRED() and counts(paper, 576) == (115,) and paper.alpha == 0.5
    assert counts(HiRED(**HiRED.presets["paper-10"]), 2880) == (288,)
    for name in ("192", "128", "64"):
        assert counts(HiRED(**HiRED.presets[name]), 576) == (int(name),)


def test_scores_that_are_no_numbers_are_refused() -> None:
    values = torch.rand(80)
    for first, last in ((values / 0 * 0, values), (values, values / 0 * 0)):
        with pytest.raises(PrunusError, match="hired.score returned NaN"):
            HiRED(keep=9).select(0, shown(first, last, TWO_BY_TWO, 9))


@pytest.mark.parametrize(
    ("params", "words"), [({"keep": 0}, "keep=0"), ({"alpha": -0.1}, "alpha=-0.1")]
)
def test_bad_parameters(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HiRED(**params)
