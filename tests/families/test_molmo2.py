"""Molmo 2, loaded from disk with its real processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, EvoPrune, Random, Uniform
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.families.molmo2 import Cropped
from prunus.grid import Grid, Tiles
from prunus.train.options import Options
from prunus.train.run import Training
from prunus.train.sources import Questions, Split
from tests.conftest import Case
from tests.support.families import encoded
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    held_bytes,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.molmo2 import MOLMO2, PATCH
from tests.support.real_prompts import RealPrompts
from tests.support.runs import gap, plain
from tests.train.test_trainer import SETTINGS, questions

ORDINARY = (("I", "released"), ("V", "before"))


class OneEach(RealPrompts):
    """The processor takes one video for each row at most."""

    def rows(self, *images: int, text: int = 6, seed: int = 1) -> dict[str, Tensor]:
        return super().rows(*(min(count, 1) for count in images), text=text, seed=seed)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(MOLMO2, tmp_path_factory.mktemp("model"))


@pytest.fixture
def case(loaded: tuple[Any, Any]) -> Case:
    return case_of(MOLMO2, loaded, "I")


@pytest.mark.parametrize(
    ("signs", "method"),
    [
        pytest.param(s, m, marks=[] if (s, m) in ORDINARY else pytest.mark.full)
        for s in "IV"
        for m in METHODS
        if (s, m) != ("V", "released")  # the spectrum of 2 x 2 cells is little more than rounding
    ],
)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, signs: str, loaded: tuple[Any, Any]) -> None:
    case = case_of(MOLMO2, loaded, signs)
    if signs == "V":
        case.prompts = OneEach(MOLMO2, *loaded, signs)  # type: ignore[assignment]
    hold(name, case, METHODS[method])


def test_parts_of_an_image(loaded: tuple[Any, Any], case: Case) -> None:
    """An overview and the crops put together, one budget for both; rows' ends are text."""
    inputs = case.prompts.rows(2, 1)
    spots = case.prompts.spots(inputs["input_ids"])
    with prunus.prune(case.model, CLSE(keep=0.25)) as run:
        plain(case.model, inputs)
    cell = (2 * PATCH, 2 * PATCH)
    grids = [
        Tiles((Grid(1, a, b, cell), Grid(1, c, d, cell)))
        for a, b, c, d in inputs["image_grids"].tolist()
    ]
    counts = inputs["image_num_crops"].tolist()
    assert sum(counts) == len(inputs["pixel_values"])
    crops = [Cropped(one.parts, crops=n) for one, n in zip(grids, counts, strict=True)]
    assert run.trace[0].grid == [crops[:2], crops[2:]]
    assert [[len(k) for k in row] for row in run.trace[0].kept] == [
        [len(places) // 4 for places in row] for row in spots
    ]


def test_a_video_is_one_grid(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(MOLMO2, processor, "what V is this?")
    with prunus.prune(model, Uniform(keep=5)) as run:
        plain(model, inputs)
    assert run.trace[0].grid == [[Grid(4, 2, 2, (3 * PATCH, 3 * PATCH))]]
    assert run.trace[0].kind == [["video"]]


def test_pictures_see_each_other(case: Case) -> None:
    """Or the oracles would not tell: without it, logits are others, pruned or not."""
    inputs = case.prompts.rows(2)
    causal = {**inputs, "mm_token_type_ids": 0 * inputs["mm_token_type_ids"]}
    for method in (Uniform(keep=1.0), Random(keep=9, layer=None)):
        with prunus.prune(case.model, method):
            assert gap(plain(case.model, inputs), plain(case.model, causal)) > 1e-2


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    """The patches that a token pools are those of its place in the picture, in either part."""
    model, processor = loaded
    size = (90, 44)
    inputs = marked_inputs(MOLMO2, processor, size, square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"].flatten(0, 1)  # by patch
    patches = (pixels > pixels.min() + 0.3 * (pixels.max() - pixels.min())).any(1)
    pooling = inputs["image_token_pooling"]
    bright = (patches[pooling.clamp(min=0)] & (pooling >= 0)).any(1).numpy()
    first = grid.parts[0].size
    for part, seen in zip(grid.parts, (bright[:first], bright[first:]), strict=True):
        assert_mark_in_boxes(boxes_of(part, size), seen, square)


def test_features_from_outside(case: Case) -> None:
    inputs = case.prompts.rows(1)
    with prunus.prune(case.model, Uniform(keep=5)), torch.no_grad():
        expected = case.model(**inputs).logits
        given = [inputs.pop(name) for name in ("pixel_values", "image_token_pooling")]
        features = case.model.get_image_features(*given, inputs["image_grids"])
        found = case.model(**inputs, mm_encoder_outputs={"image": features}).logits
        assert gap(found, expected) < 1e-6
        del inputs["image_grids"]
        with pytest.raises(PrunusError, match="does not say how large"):
            case.model(**inputs, mm_encoder_outputs={"image": features})


@pytest.mark.parametrize("signs", ["I", "V"])
def test_costs(signs: str, loaded: tuple[Any, Any]) -> None:
    """The tower sees overlapping crops; a token of a video pools more patches than one of an
    image."""
    inputs = case_of(MOLMO2, loaded, signs).prompts.rows(1)
    del inputs["attention_mask"]
    assert assert_costs(loaded[0], inputs, Uniform(keep=3))["uncounted"] == {}


def test_costs_are_not_counted_where_crops_are_not_known(case: Case) -> None:
    inputs = case.prompts.rows(1)
    del inputs["image_num_crops"]
    with prunus.prune(case.model, Uniform(keep=5)) as run, torch.no_grad():
        cache = case.model(**inputs, use_cache=True).past_key_values
    report = run.report()
    assert report["flops"] is None and "image_num_crops" in report["uncounted"]["flops"]
    assert report["kv_bytes"]["pruned"] == held_bytes(cache) < report["kv_bytes"]["dense"]


def test_training_is_refused(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    data = Split("boxes", Questions(questions()), None)
    with pytest.raises(PrunusError, match="training is not supported for molmo2.*numbers patches"):
        Training(*loaded, "molmo2", data, SETTINGS, tmp_path, Options(), None)


def test_merging_in_the_tower_is_refused(loaded: tuple[Any, Any]) -> None:
    with pytest.raises(PrunusError, match="vision tower.*molmo2.*pools patches"):
        prunus.prune(loaded[0], EvoPrune(keep=5)).attach()
