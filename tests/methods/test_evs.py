"""EVS against a literal reading, and against what transformers does for a model that has it."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Fixed, Random, Uniform
from prunus.grid import Grid, Tiles
from prunus.method import Selection
from prunus.pruners.evs import EVS
from prunus.pruners.uniform import lattice
from tests.support.entering import entering, view_by_hand
from tests.support.models import Case, case_of
from tests.support.runs import plain


def literal(states: Tensor, frames: int, spread: list[int] | None, count: int) -> list[int]:
    """``count`` tokens of a video: all of the first slice, or those of it that are ``spread``;
    then, from the largest on, those that are farthest from the one before in their cell."""
    size = len(states) // frames
    chosen = list(range(size)) if spread is None else list(spread)
    away = []
    for token in range(size, len(states)):
        a, b = states[token].double(), states[token - size].double()
        cosine = float(a @ b) / float(a.norm() * b.norm())
        away.append((cosine, token))
    chosen += [token for _, token in sorted(away)[: count - len(chosen)]]
    return sorted(chosen)


def kept(method: EVS, count: int, grid: Any, states: Tensor) -> list[int]:
    answer = method.select(0, view_by_hand(count, grid, states))
    assert isinstance(answer, Selection) and len(answer.kept) == 1
    return [int(token) for token in answer.kept[0]]


def test_the_published_example() -> None:
    states = torch.tensor([[1, 0], [0, 1], [1, 0], [0.6, 0.8], [1, 0], [0.6, 0.8]])
    assert kept(EVS(keep=0.5), 3, Grid(3, 1, 2, (8, 8)), states) == [0, 1, 3]


@pytest.mark.parametrize("size", [(4, 3, 5), (2, 6, 6), (8, 1, 7)])
def test_keeps_what_transformers_keeps(size: tuple[int, int, int]) -> None:
    """The same choice is made there for one model that has it built in."""
    name = "transformers.models.nemotron_h_omni.modeling_nemotron_h_omni"
    try:
        theirs: Any = importlib.import_module(name)
    except ImportError:
        pytest.skip("this transformers has no model that samples videos")
    grid = Grid(*size, (8, 8))
    states = torch.randn(grid.size, 12, generator=torch.Generator().manual_seed(1))
    slices = grid.size // grid.frames
    states[slices : slices + 2] = states[:2]  # no change at all
    for count in range(slices, grid.size + 1):
        rate = 1 - (count + 0.5) / grid.size
        expected = theirs.compute_retention_mask(states, grid.frames, rate).nonzero().flatten()
        assert kept(EVS(), count, grid, states) == expected.tolist()


@pytest.mark.parametrize("first", ["whole", "share"])
def test_equals_the_literal_reading(first: Any) -> None:
    case = case_of("qwen2.5-vl-video")
    inputs = case.prompts.rows(2, 1)  # a video and an image, and a longer video
    _, entered = entering(case, Fixed([0], layer=DEEP), inputs)
    grids = case.prompts.grids(inputs)
    for keep, whole in ((0.7, first == "whole"), (0.2, False)):
        with prunus.prune(case.model, EVS(keep=keep, first=first)) as run:
            plain(case.model, inputs)
        (entry,) = run.trace
        assert entry.layer is None
        videos = 0
        for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
            for image, places in enumerate(images):
                frames, rows, cols = grids[row][image]
                count = int(keep * len(places) + 1e-6)
                spread = None
                if not (whole and frames > 1):
                    spread = lattice(_share(count, frames), rows, cols).tolist()
                expected = literal(entered[row, places], frames, spread, count)
                assert entry.kept[row][image].tolist() == expected and len(expected) == count
                videos += frames > 1
        assert videos == 2


DEEP = 4  # the last layer of the tiny model: nothing before it is touched


def _share(count: int, frames: int) -> int:
    """What is nearest to the first slice's share; of two halves, the first part gets it."""
    return int(count / frames + 0.5) if frames > 2 else -(-count // frames)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_every_budget_is_met(frames: int) -> None:
    grid = Grid(frames, 3, 4, (8, 8))
    states = torch.randn(grid.size, 6, generator=torch.Generator().manual_seed(frames))
    for first in ("whole", "share"):
        for count in range(1, grid.size + 1):
            found = kept(EVS(first=first), count, grid, states)  # type: ignore[arg-type]
            assert len(found) == count and found == sorted(set(found))
            inside = sum(token < 12 for token in found)
            if frames > 1 and first == "whole" and count >= 12:
                assert inside == 12
            else:
                assert abs(inside - count / frames) < 1


def test_an_image_keeps_an_even_lattice() -> None:
    case = case_of("qwen2.5-vl")
    inputs = case.prompts.rows(2, 1)
    found = []
    for method in (EVS(keep=7), Uniform(keep=7, layer=None)):
        with prunus.prune(case.model, method) as run:
            plain(case.model, inputs)
        found.append([image.tolist() for row in run.trace[0].kept for image in row])
    assert found[0] == found[1] and len(found[0]) == 3


def test_parts_have_slices_of_their_own() -> None:
    """Two parts of two frames each: no token is compared with one of another part."""
    grid = Tiles((Grid(2, 2, 2, (8, 8)), Grid(2, 1, 3, (8, 8))))
    generator = torch.Generator().manual_seed(3)
    parts = [torch.randn(part.size, 6, generator=generator) for part in grid.parts]
    states = torch.cat(parts)
    for part, start in zip(grid.parts, (0, 8), strict=True):
        size = part.size // 2
        states[start + size] = states[start] * 3  # a change of length alone is none
    first = [0, 1, 2, 3, 8, 9, 10]
    assert kept(EVS(), 7, grid, states) == first
    assert kept(EVS(), 12, grid, states) == sorted([*first, 5, 6, 7, 12, 13])
    shared = kept(EVS(first="share"), 7, grid, states)
    assert len(shared) == 7 and 4 not in shared and 11 not in shared


def test_counts_matrix_products() -> None:
    assert EVS().macs(0, Grid(4, 3, 5, (8, 8)), 60, 10) == 45 * 10
    assert EVS().macs(0, Grid(1, 3, 5, (8, 8)), 15, 10) == 0
    assert EVS().macs(0, Tiles((Grid(2, 2, 2, (8, 8)), Grid(2, 1, 3, (8, 8)))), 14, 10) == 7 * 10


def test_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="keeps nothing"):
        EVS(keep=0)
    with pytest.raises(ValueError, match="first='none': choose whole or share"):
        EVS(first="none")  # type: ignore[arg-type]
    with (
        pytest.raises(ValueError, match="evs needs the whole grid"),
        prunus.prune(case.model, [Random(keep=0.9, layer=None), EVS(keep=0.5)]),
    ):
        plain(case.model, case.prompts.rows(1))
