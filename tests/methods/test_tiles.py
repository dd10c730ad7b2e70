"""Methods that need rows and columns, on images made of parts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import prunus
from prunus import CLSE, Uniform
from prunus.errors import PrunusError
from prunus.grid import Grid, Tiles
from prunus.method.base import Cut, Method
from prunus.method.view import View
from prunus.pruners.uniform import lattice, lattice_over
from prunus.signals.spectral import high_frequency
from tests.support.families import LLAVA_NEXT, encoded

TILES = Tiles((Grid(1, 4, 4, (8, 8)), Grid(1, 3, 6, (8, 8))))


def test_each_part_has_a_spectrum_of_its_own() -> None:
    states = torch.randn(2, TILES.size, 40)
    found = high_frequency(states, TILES, 0.4)
    for start, part in zip((0, 16), TILES.parts, strict=True):
        own = high_frequency(states[:, start : start + part.size], part, 0.4)
        assert torch.equal(found[:, start : start + part.size], own)
    other = states.clone()
    other[:, :16] += 1 + torch.randn(2, 16, 40)
    assert torch.equal(high_frequency(other, TILES, 0.4)[:, 16:], found[:, 16:])
    with pytest.raises(PrunusError, match="33 tokens do not fill a grid of 34"):
        high_frequency(states[:, :33], TILES, 0.4)


def test_spectra_cost_what_their_parts_cost() -> None:
    method = CLSE(keep=5)
    parts = sum(method.macs(0, part, part.size, 64) for part in TILES.parts)
    assert method.macs(0, TILES, TILES.size, 64) == parts == 2 * (16 * 8 + 18 * 9) * 64


def test_uniform_has_a_lattice_in_each_part() -> None:
    taken = lattice_over(torch.arange(34)[None], 17, TILES.parts)[0]
    assert taken[:16].nonzero()[:, 0].tolist() == lattice(8, 4, 4).tolist()
    assert taken[16:].nonzero()[:, 0].tolist() == lattice(9, 3, 6).tolist()


def test_uniform_behind_another_method_keeps_its_count() -> None:
    present = torch.stack([torch.arange(20), torch.arange(14, 34)])  # parts lost unequally many
    taken = lattice_over(present, 9, TILES.parts)
    assert taken.sum(1).tolist() == [9, 9]
    inside = present < 16
    assert (taken & inside).sum(1).tolist() == [5, 2] and (taken & ~inside).any(1).all()


def test_a_method_that_asks_for_columns_is_told_of_parts() -> None:
    @dataclass(frozen=True)
    class ByRow(Method):
        """As a method from outside may be written that never saw tiles."""

        name = "by-row"
        paper = "none"
        summary = "the first rows"

        def cuts(self, depth: int) -> list[Cut]:
            return [Cut(1)]

        def counts(self, keep: object, original: int, depth: int) -> list[int]:
            return [4]

        def score(self, stage: int, view: View) -> torch.Tensor:
            return -(view.present // view.grid.cols).float()

    model, processor = LLAVA_NEXT.build()
    inputs = encoded(LLAVA_NEXT, processor, "aI what?")
    with prunus.prune(model, ByRow()), pytest.raises(PrunusError, match="no one 'cols'.*parts"):
        model(**inputs)
    with prunus.prune(model, Uniform(keep=5)) as run, torch.no_grad():
        model(**inputs)
    assert run.report()["tokens"]["kept"] == 5
