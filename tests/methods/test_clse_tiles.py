"""CLSE on images in tiles with a thumbnail: its local and its global form, read literally."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.grid import Grid, Tiles
from prunus.signals.spectral import at_each_resolution, high_frequency
from tests.methods.test_clse import literal_gate
from tests.support.families import LLAVA_NEXT, SMALL, TALL, WIDE, encoded
from tests.support.family_invariants import case_of
from tests.support.kinds.internvl import INTERNVL
from tests.support.literal.clse import best, first_stage, states_and_attention
from tests.support.literal.spectral import literal_map
from tests.support.models import Case
from tests.support.real_prompts import packed_numbers

SIDE = 3  # tokens of a tile
SHAPES = {WIDE: (1, 2), SMALL: (2, 3), TALL: (2, 1)}  # tiles down and across


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return INTERNVL.build()


@pytest.fixture
def case(loaded: tuple[Any, Any]) -> Case:
    return case_of(INTERNVL, loaded, "I")


def told(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the sizes of the pictures of a prompt with three images."""
    return {**inputs, "image_sizes": torch.tensor([size[::-1] for size in SHAPES])}


def raster(down: int, across: int) -> list[int]:
    """For each cell of the tiles put together, row by row, its token's place in the run."""
    order = []
    for row in range(down * SIDE):
        for col in range(across * SIDE):
            tile = (row // SIDE) * across + col // SIDE
            order.append(tile * SIDE**2 + (row % SIDE) * SIDE + col % SIDE)
    return order


def literal_scores(now: Tensor, then: Tensor, shape: tuple[int, int], tiles: str) -> list[float]:
    """The intensity of the tokens of one image, in the order of their run."""
    count, each = shape[0] * shape[1], SIDE**2

    def spectrum(states: Tensor) -> tuple[list[float], list[float]]:
        if tiles == "local":
            own = states[: count * each].split(each)
            detail = [v for tile in own for v in literal_map(tile, 1, SIDE, SIDE, 0.1).tolist()]
        else:
            order = raster(*shape)
            rows, cols = shape[0] * SIDE, shape[1] * SIDE
            found = literal_map(states[order], 1, rows, cols, 0.1).tolist()
            detail = [found[order.index(n)] for n in range(count * each)]
        return detail, literal_map(states[count * each :], 1, SIDE, SIDE, 0.1).tolist()

    scores = []
    for present, past in zip(spectrum(now), spectrum(then), strict=True):  # tiles, thumbnail
        mean = sum(past) / len(past)
        change = [
            min(abs(a - b) / (b + mean + 1e-6), 1.0) for a, b in zip(present, past, strict=True)
        ]
        scores.append(change)
    return scores


def z_scores(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return [(value - mean) / (deviation + 1e-6) for value in values]


@pytest.mark.parametrize("tiles", ["local", "global"])
@pytest.mark.parametrize("variant", ["paper", "hybrid"])
def test_tiles_and_thumbnail_have_statistics_of_their_own(
    case: Case, variant: Any, tiles: Any
) -> None:
    inputs = case.prompts.rows(2, 1)
    hidden, attention = states_and_attention(case, inputs)
    with prunus.prune(case.model, CLSE(keep=10, variant=variant, tiles=tiles)) as run:
        case.model(**told(inputs))
    images = [
        (row, image, places)
        for row, own in enumerate(case.prompts.spots(inputs["input_ids"]))
        for image, places in enumerate(own)
    ]
    for (row, image, places), shape in zip(images, SHAPES.values(), strict=True):
        parts = literal_scores(hidden[1][row, places], hidden[0][row, places], shape, tiles)
        if variant == "paper":
            by_token = [v for part in parts for v in z_scores(part)]
        else:
            looked = attention[0][row, :, -1, places].mean(0).tolist()
            gates = [v for part in parts for v in literal_gate(part, 0.1)]
            by_token = [g * a for g, a in zip(gates, looked, strict=True)]
        order = raster(*shape)
        order += range(len(order), len(places))  # the thumbnail
        expected = [by_token[n] for n in order]
        kept, scores = first_stage(run, row, image)
        assert scores == pytest.approx(expected, rel=2e-3, abs=1e-4)
        assert kept == best(scores, 10)  # one ranking of both


def test_the_two_forms_differ_and_the_local_one_needs_no_sizes(case: Case) -> None:
    inputs = case.prompts.rows(2, 1)
    found = {}
    for name, tiles, given in (
        ("local", "local", told(inputs)),
        ("global", "global", told(inputs)),
        ("loose", "local", inputs),
    ):
        method = CLSE(keep=10, tiles=tiles)  # type: ignore[arg-type]
        with prunus.prune(case.model, method) as run, torch.no_grad():
            logits = case.model(**given).logits
        found[name] = logits, run.trace[0].scores[0][1]
    torch.testing.assert_close(found["local"][0], found["loose"][0])
    assert float((found["local"][1] - found["global"][1]).abs().max()) > 0.1
    with prunus.prune(case.model, CLSE(keep=10, tiles="global")):
        with pytest.raises(PrunusError, match="how they are arranged.*image_sizes.*tiles='local'"):
            case.model(**inputs)


def test_costs_are_those_of_what_is_transformed() -> None:
    tile = Grid(1, 3, 3, (8, 8))
    grid = Tiles((Grid(1, 6, 9, (8, 8), seams=((3,), (3, 6))), tile))
    assert CLSE().macs(0, grid, 63, 10) == 2 * 63 * (3 + 3) * 10
    assert CLSE(tiles="global").macs(0, grid, 63, 10) == 2 * (54 * (6 + 9) + 9 * 6) * 10


def test_tiles_of_unequal_size() -> None:
    """Where padding has been cut off, a tile may be a strip of one row."""
    grid = Grid(1, 5, 4, (8, 8), seams=((1,), (3,)))
    states = torch.randn(2, 20, 12)
    found = high_frequency(states, grid, 0.4).view(2, 5, 4)
    field = states.view(2, 5, 4, 12)
    for rows in (slice(0, 1), slice(1, 5)):
        for cols in (slice(0, 3), slice(3, 4)):
            own = field[:, rows, cols]
            tile = Grid(1, own.shape[1], own.shape[2], (8, 8))
            expected = high_frequency(own.flatten(1, 2), tile, 0.4)
            torch.testing.assert_close(found[:, rows, cols].flatten(1), expected)


def test_llava_next_has_tiles_where_its_tower_saw_them() -> None:
    model, processor = LLAVA_NEXT.build()
    inputs = encoded(LLAVA_NEXT, processor, "aI what I?")
    seen = [grid.parts[1] for grid in family_of(model).grids_of(inputs)["image"]]
    for part, size in zip(seen, (WIDE, SMALL), strict=True):
        numbers = torch.tensor(packed_numbers(model, size[::-1])[16:])  # the model's, tile by tile
        tile = (numbers[numbers >= 0] // 16).view(part.rows, part.cols)
        for axis in (0, 1):
            starts = tile.diff(dim=axis).select(1 - axis, 0).nonzero().flatten() + 1
            assert part.seams[axis] == tuple(starts.tolist())
    assert [part.seams for part in seen] == [((), (2, 6)), ((), (3,))]
    with prunus.prune(model, CLSE(keep=9)) as run, torch.no_grad():
        model(**inputs)
    for scores, grid in zip(run.trace[0].scores[0], run.trace[0].grid[0], strict=True):
        means = at_each_resolution(grid, lambda own: own.mean(1, keepdim=True), scores[None])
        assert means.abs().max() < 1e-4  # z-scores, of overview and tiles by themselves
