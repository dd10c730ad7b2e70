"""VScan against a literal reading, and its cut inside the decoder against PyramidDrop's."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Fixed
from prunus.errors import PrunusError
from prunus.grid import Grid, Tiles
from prunus.method.signals import TowerAttention
from prunus.pruners.pyramiddrop import PyramidDrop
from prunus.pruners.vscan import VScan
from prunus.signals.topk import rank_in
from prunus.signals.windows import window_counts, windows_of
from tests.support.entering import entering, view_by_hand
from tests.support.facts import counts
from tests.support.literal.tower import looked
from tests.support.literal.vscan import scanned
from tests.support.models import Case, case_of
from tests.support.oracles.merged_windows import frames_of, merged_frame
from tests.support.runs import gap, plain
from tests.support.towers import deep, prompt

SEES = VScan().cuts(32)[0].sees


def view_of(count: int, grid: Any, states: Tensor, local: Tensor, overall: Tensor) -> prunus.View:
    """A view of one image whose blocks have attention of their own."""
    view = view_by_hand(count, grid, states=states, sees=SEES)
    blocks = {None: overall, SEES[0].block: local}
    source: Any = SimpleNamespace(
        block=lambda number: SimpleNamespace(attention=lambda rows: blocks[number][None]),
        layer=view.source.layer,
    )
    return dataclasses.replace(view, source=source, _read={})


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize(("keep", "side"), [(1, 4), (6, 4), (12, 2), (15, 1), (33, 4), (20, 9)])
def test_the_first_stage_is_the_literal_reading(kind: str, keep: int, side: int) -> None:
    case, inputs = deep(kind), prompt(2)
    run, states = entering(case, VScan(keep=keep, stages="tower", windows=side), inputs)
    pixels = inputs["pixel_values"]
    with torch.no_grad():
        projected = case.model.model.get_image_features(pixels).pooler_output
    early, late, start = looked(case.model, pixels, 1), looked(case.model, pixels), 2
    for number, features in enumerate(projected):  # of six blocks that are read, 22 % is the first
        local, overall = early[number][1], late[number][1]
        kept, own = scanned(list(features), local, overall, 6, 6, keep, side)
        assert run.trace[0].kept[0][number].tolist() == kept
        assert gap(states[0, start : start + keep], torch.stack(own)) < 1e-5
        start += keep


def test_the_published_example() -> None:
    local = torch.zeros(16)
    local[[0, 3, 12, 15]] = 1.0
    states = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    view = view_of(8, Grid(1, 4, 4, (8, 8)), states, local, torch.arange(16.0))
    answer = VScan(keep=8, windows=2).select(0, view)
    assert answer.kept[0].tolist() == [0, 3, 10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("keep", [96, 192, 288])
def test_where_windows_divide_the_number_each_has_its_best(keep: int) -> None:
    """As the released code for LLaVA has it: K // 2 // 16 in each window of 6 x 6."""
    generator = torch.Generator().manual_seed(keep)
    local, overall = torch.rand(2, 576, generator=generator)
    states = torch.randn(576, 8, generator=generator)
    view = view_of(keep, Grid(1, 24, 24, (14, 14)), states, local, overall)
    kept = VScan(stages="tower").select(0, view).kept[0].tolist()
    wanted: set[int] = set()
    for y in range(0, 24, 6):
        for x in range(0, 24, 6):
            own = [(y + a) * 24 + x + b for a in range(6) for b in range(6)]
            wanted |= set(sorted(own, key=lambda n: -local[n])[: keep // 2 // 16])
    assert len(wanted) == keep // 2
    rest = sorted(set(range(576)) - wanted, key=lambda n: -overall[n])
    assert kept == sorted(wanted | set(rest[: keep - keep // 2]))


def test_windows_of_grids_that_they_do_not_divide() -> None:
    grid = Grid(2, 5, 3, (8, 8))
    found = windows_of(grid, 2).view(2, 5, 3)
    assert found[0].tolist() == [[0, 1, 1], [0, 1, 1], [2, 3, 3], [2, 3, 3], [2, 3, 3]]
    assert torch.equal(found[1], found[0] + 4)
    assert window_counts(grid, 2) == [4, 4] and window_counts(grid, 4) == [12, 12]
    assert windows_of(Grid(1, 5, 3, (8, 8)), 4)[-3:].tolist() == [9, 10, 11]
    seams = Grid(1, 2, 4, (8, 8), None, ((), (2,)))  # two tiles side by side
    assert windows_of(seams, 1).tolist() == [0, 0, 1, 1] * 2


def test_ranks_are_by_group_and_ties_go_to_the_lower_index() -> None:
    scores = torch.tensor([[1.0, 3, 1, 2, 3, -torch.inf]])
    group = torch.tensor([[0, 1, 0, 0, 1, 0]])
    assert rank_in(scores, group).tolist() == [[1, 0, 2, 0, 1, 3]]


def test_each_tile_has_its_share_and_merges_within() -> None:
    tiles = Tiles((Grid(1, 4, 4, (8, 8)), Grid(1, 4, 8, (8, 8))))
    generator = torch.Generator().manual_seed(5)
    states = torch.randn(48, 6, generator=generator)
    local, overall = torch.rand(2, 48, generator=generator)
    answer = VScan(windows=2).select(0, view_of(12, tiles, states, local, overall))
    assert answer.into is not None
    start, wanted, into = 0, [], answer.into[0]
    for part, count in zip(tiles.parts, (4, 8), strict=True):
        own = slice(start, start + part.size)
        kept, _ = scanned(list(states[own]), local[own], overall[own], 4, part.cols, count, 2)
        wanted += [token + start for token in kept]
        assert bool(((into[own] >= start) & (into[own] < start + part.size)).all())
        start += part.size
    assert answer.kept[0].tolist() == wanted


def test_on_qwen_by_attention_received() -> None:
    case = case_of("qwen2.5-vl-video")
    inputs = case.prompts.rows(2)
    _, dense = entering(case, VScan(keep=1.0), inputs)
    run, states = entering(case, VScan(keep=8, stages="tower", windows=2), inputs)
    parts: dict[Any, list[Any]] = {}
    for kind, number, grid, pixels in frames_of(inputs, 2):
        seen: list[Any] = []
        with torch.no_grad():
            merged_frame(case.model.model.visual, pixels, grid, seen.append)
        parts.setdefault((kind, number), []).append((grid, seen))
    spots, shift = case.prompts.spots(inputs["input_ids"])[0], 0
    for number, kind in enumerate(run.trace[0].kind[0]):
        frames = parts[kind, run.trace[0].kind[0][:number].count(kind)]
        wanted, made, start = [], [], 0
        for at, (grid, seen) in enumerate(frames):
            count = 8 // len(frames) + (at < 8 % len(frames))
            places = spots[number][start : start + grid.size]
            local, overall = seen[int(0.22 * len(seen))].received, seen[-1].received
            rows = list(dense[0, places])
            kept, own = scanned(
                rows, local.tolist(), overall.tolist(), grid.rows, grid.cols, count, 2
            )
            wanted += [start + token for token in kept]
            made += own
            start += grid.size
        assert run.trace[0].kept[0][number].tolist() == wanted
        begin = spots[number][0] - shift
        assert gap(states[0, begin : begin + 8], torch.stack(made)) < 1e-4
        shift += len(spots[number]) - 8


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_the_second_stage_is_the_scorer_of_pyramiddrop(case: Case, positions: Any) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, VScan(keep=5, layer=2, positions=positions)) as run:
        found = plain(case.model, inputs)
    (first, second) = run.trace
    size = first.grid[0][0].size
    parts = [
        VScan(keep=len(first.kept[0][0]), stages="tower"),
        PyramidDrop(ratio=len(second.kept[0][0]) / size, layers=(2,), positions=positions),
    ]
    with prunus.prune(case.model, parts) as other:
        wanted = plain(case.model, inputs)
    assert [[own.tolist() for own in row] for row in other.trace[1].kept] == [
        [own.tolist() for own in row] for row in second.kept
    ]
    assert torch.equal(found, wanted)


def test_presets_average_what_they_say() -> None:
    for name, wanted in (("192", (288, 96)), ("128", (192, 64)), ("64", (96, 32))):
        method = VScan(**VScan.presets[name])  # type: ignore[arg-type]
        assert counts(method, 576, 32) == wanted
        assert [cut.layer for cut in method.cuts(32)] == [None, 16]
        assert (16 * wanted[0] + 16 * wanted[1]) / 32 == int(name)
    assert counts(VScan(), 576, 32) == (96, 32)
    assert counts(VScan(keep=1.0), 576, 32) == (576, 576)
    assert counts(VScan(**VScan.presets["tower"]), 576, 32) == (96,)  # type: ignore[arg-type]
    assert [cut.layer for cut in VScan().cuts(28)] == [None, 14]  # as published for Qwen2.5-VL
    assert counts(VScan(keep=0.111), 1296, 28) == (214, 71)


def test_the_early_block_is_the_published_one() -> None:
    from prunus.families.towers.vit import ViT

    tower = object.__new__(ViT)
    for read, block in ((23, 5), (32, 7)):
        tower.read = read
        assert tower.number(SEES[0].block) == block


@pytest.mark.parametrize("stages", ["both", "tower"])
def test_a_replay_is_exact(case: Case, stages: Any) -> None:
    inputs = case.prompts.rows(2, 0, 1)
    with prunus.prune(case.model, VScan(keep=6, stages=stages)) as run:
        expected = plain(case.model, inputs)
    with prunus.prune(case.model, Fixed.replay(run.trace)):
        assert torch.equal(plain(case.model, inputs), expected)


def test_bad_parameters() -> None:
    for params, words in (
        ({"windows": 0}, "windows=0"),
        ({"keep": 0}, "keep=0"),
        ({"stages": "decoder"}, "stages"),
    ):
        with pytest.raises(PrunusError, match=words):
            VScan(**params)  # type: ignore[arg-type]
    case, inputs = deep(), prompt(1)
    inputs["pixel_values"][0, 0, 0, 0] = float("nan")
    with pytest.raises(PrunusError, match="vscan: scores hold NaN"):
        entering(case, VScan(keep=4), inputs)
    assert TowerAttention() in SEES
