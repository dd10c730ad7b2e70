"""Which placeholder is which cell: whatever a family says, and what it must not say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Uniform
from prunus.engine.prompt import find_images
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.families.llava import Llava
from prunus.grid import AnyGrid, Grid
from tests.support.llava import IMAGE, TOKENS, llava_clip_full
from tests.support.models import Case

GRID = Grid(1, 2, 2, (8, 8))


class Odd(Llava):
    """Columns first, a mark behind each; not to be found by a model."""

    name = "odd"
    model_types = ()

    said = (0, 2, -1, 1, 3, -1)

    def cells(self, grid: AnyGrid) -> Tensor:
        return torch.tensor(self.said)


def test_cells_in_any_order(llava: Case) -> None:
    family = Odd(llava.model)
    assert family.places(GRID).tolist() == [0, 3, 1, 4]
    ids = torch.tensor([[5, 6, *[IMAGE] * 6, 7, *[IMAGE] * 6, 8]])
    prompt = find_images(family, family.placeholders(ids, None), {"image": [GRID, GRID]})
    assert [image.positions.tolist() for image in prompt.images] == [[2, 5, 3, 6], [9, 12, 10, 13]]


@pytest.mark.parametrize("said", [(0, 1, 2), (0, 1, 1, 2), (0, 1, 2, 4), (0, 1, 2, 3, 3)])
def test_every_cell_must_be_named_once(said: tuple[int, ...], llava: Case) -> None:
    family = Odd(llava.model)
    family.said = said
    with pytest.raises(PrunusError, match="family odd says.*grid of 4 cells.*each of them once"):
        family.places(GRID)


def test_a_mark_counts_as_text(llava: Case) -> None:
    model = llava_clip_full()
    (grid,) = family_of(model).grids_of({"pixel_values": torch.zeros(1, 3, 32, 32)})["image"]
    assert family_of(model).cells(grid).tolist() == [-1, *range(TOKENS)]
    ids = torch.tensor([[5, *[IMAGE] * (TOKENS + 1), 7]])
    with prunus.prune(model, Uniform(keep=3, layer=None)) as run, torch.no_grad():
        model(input_ids=ids, pixel_values=torch.randn(1, 3, 32, 32))
    assert run.report()["tokens"]["original"] == TOKENS
    assert run._engine.prefill is not None and run._engine.prefill.text == [3]  # type: ignore[attr-defined]


def test_a_family_without_more_to_say(llava: Case) -> None:
    class Plain(Llava):
        name = "plain"
        model_types = ()
        no_merging = "nobody wrote down its blocks"

    family = Plain(llava.model)
    assert family.cells(GRID).tolist() == family.places(GRID).tolist() == [0, 1, 2, 3]
    assert family.tower_grids(GRID) == (GRID,) and family.beside({"a": 1}) == ({"a": 1}, [])
