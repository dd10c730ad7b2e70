"""VisiPruner's choice from views made by hand: which image decides, and on what scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from prunus import VisiPruner
from prunus.grid import Grid
from prunus.method import View
from prunus.method.signals import LeaveOneOut
from prunus.signals.influence import Influence

DEPTH = 8
Image = tuple[list[float], list[float]]  # of each token: cosine and change without it


class Scripted:
    """A source of influence alone."""

    def __init__(self, seen: Influence) -> None:
        self.seen = seen

    def layer(self, number: int) -> Any:
        return self

    def influence(self) -> Influence:
        return self.seen


def view(images: dict[tuple[int, int], Image], output: float, memo: dict[Any, Any]) -> View:
    """Images ``(sample, image)`` of one grid, all tokens there."""
    cosine, change = (torch.tensor([image[part] for image in images.values()]) for part in (0, 1))
    seen = Influence(cosine, change, torch.full((len(images),), output))
    count = cosine.shape[1]
    return View(
        grid=Grid(1, 1, max(count, 1), (1, 1)),
        present=torch.arange(count).expand(len(images), -1),
        owners=list(images),
        samples=1 + max(sample for sample, _ in images),
        depth=DEPTH,
        memo=memo,
        sizes=torch.ones(len(images), count),
        count=None,
        source=Scripted(seen),  # type: ignore[arg-type]
        sees=tuple(LeaveOneOut(layer) for layer in range(DEPTH)),
    )


def choose(
    method: VisiPruner, stage: int, *groups: dict[tuple[int, int], Image], output: float = 1.0
) -> dict[tuple[int, int], tuple[list[int], str]]:
    """What is kept of each image at ``stage``, and what happened."""
    memo: dict[Any, Any] = {}
    views = [view(images, output, memo) for images in groups]
    found = {}
    for own, selection in zip(views, method.choose(stage, views), strict=True):
        for place, owner in enumerate(own.owners):
            kept: Tensor = selection.kept[place]
            assert selection.labels is not None
            found[owner] = kept.tolist(), selection.labels[place]
    return found


FILTER = {"stages": ("middle",), "shallow_layers": 1, "layer_threshold": 0.5}
CALM: Image = ([0.9, 0.9, 0.9], [0.1, 0.4, 0.2])
STIRRED: Image = ([0.9, 0.4, 0.9], [0.3, 0.1, 0.4])


@pytest.mark.parametrize("stirred", [0, 1, 2])
@pytest.mark.parametrize("together", [True, False])
def test_any_image_of_a_sample_makes_the_layer_its_filter(stirred: int, together: bool) -> None:
    """Images of one grid are seen together, those of different grids apart: it is all the same."""
    images = {(0, number): STIRRED if number == stirred else CALM for number in range(3)}
    groups = [images] if together else [{owner: image} for owner, image in images.items()]
    found = choose(VisiPruner(**FILTER, tokens_threshold=0.25), 0, *groups)
    for (_, number), (kept, label) in found.items():
        assert label == "filter"
        assert kept == ([0, 2] if number == stirred else [1])


def test_other_samples_are_left_alone() -> None:
    images = {(0, 0): CALM, (1, 0): STIRRED, (1, 1): CALM, (2, 0): CALM}
    found = choose(VisiPruner(**FILTER, tokens_threshold=0.25), 0, images)
    assert {owner: label for owner, (_, label) in found.items()} == {
        (0, 0): "",
        (1, 0): "filter",
        (1, 1): "filter",
        (2, 0): "",
    }
    assert found[0, 0][0] == found[2, 0][0] == [0, 1, 2]


@pytest.mark.parametrize(("output", "kept"), [(0.5, [0, 2]), (0.7, [2]), (0.1, [0, 1, 2]), (1, [])])
def test_relative_is_a_share_of_the_whole_output(output: float, kept: list[int]) -> None:
    method = VisiPruner(**FILTER, relative=0.5)  # changes of 0.3, 0.1 and 0.4
    assert choose(method, 0, {(0, 0): STIRRED}, output=output) == {(0, 0): (kept, "filter")}


def test_force_at_the_late_layer_and_only_there() -> None:
    method = VisiPruner(**FILTER, tokens_threshold=0.15, force=True, late_layer=4)
    for stage in range(6):  # layers 2 to 7
        kept, label = choose(method, stage, {(0, 0): CALM})[0, 0]
        assert (kept, label) == (([1, 2], "forced") if stage == 2 else ([0, 1, 2], ""))


def test_the_exit_needs_every_image_to_be_calm() -> None:
    method = VisiPruner(
        stages=("deep",), shallow_layers=1, late_layer=2, exit_threshold=0.8, exit_count=1
    )
    both = {(0, 0): CALM, (0, 1): STIRRED}
    assert {label for _, label in choose(method, 0, both).values()} == {""}
    calm = {(0, 0): CALM, (0, 1): CALM}
    assert choose(method, 0, calm) == {(0, 0): ([], "exit"), (0, 1): ([], "exit")}


def test_the_least_number_is_one_for_all_images() -> None:
    method = VisiPruner(**FILTER, tokens_threshold=0.35, min_tokens=4)
    found = choose(method, 0, {(0, 0): CALM}, {(0, 1): STIRRED})
    assert [kept for kept, _ in found.values()] == [[1, 2], [0, 2]]
