"""Aya Vision and Command A Vision (Cohere2 Vision), loaded from disk with their real processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.cohere2_vision import image_processing_cohere2_vision as command
from transformers.models.got_ocr2 import image_processing_got_ocr2 as got

import prunus
from prunus import CLSE, EvoPrune, Random, Uniform
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.grid import Tiles
from tests.support.families import SMALL, TALL, WIDE, Kind, encoded, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.cohere2_vision import (
    AYA_VISION,
    COHERE2_VISION,
    MOST,
    SIDE,
    TOKENS,
    WINDOW,
)
from tests.support.runs import decoded, gap

KINDS = {kind.name: kind for kind in (AYA_VISION, COHERE2_VISION)}
CANVAS: dict[str, Callable[..., tuple[int, int]]] = {
    "aya-vision": got.get_optimal_tiled_canvas,
    "cohere2-vision": command.get_optimal_tiled_canvas,
}
ORDINARY = {("aya-vision", "released"), ("cohere2-vision", "before")}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    return {name: load(kind, tmp_path_factory.mktemp(name)) for name, kind in KINDS.items()}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def loaded(kind: Kind, models: dict[str, tuple[Any, Any]]) -> tuple[Any, Any]:
    return models[kind.name]


@pytest.mark.parametrize(
    ("which", "method"),
    [
        pytest.param(k, m, marks=[] if (k, m) in ORDINARY else pytest.mark.full)
        for k in KINDS
        for m in METHODS
        if (k, m) != ("cohere2-vision", "late")  # names a token that one tile alone has not
    ],
)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, which: str, method: str, models: dict[str, tuple[Any, Any]]) -> None:
    hold(name, case_of(KINDS[which], models[which], "I"), METHODS[method])


def test_decoding_far_beyond_the_window(kind: Kind, loaded: tuple[Any, Any]) -> None:
    case = case_of(kind, loaded, "I")
    methods = [Random(keep=12, layer=None), Random(keep=4, layer=3)]
    run, difference = decoded(case, methods, case.prompts.rows(2, 1), 3 * WINDOW)
    assert difference < 1e-4 and run.report()["pruned"]


def sizes(*given: tuple[int, int]) -> Tensor:
    """``image_sizes`` of pictures of these widths and heights."""
    return torch.tensor([[height, width] for width, height in given])


@pytest.mark.parametrize(
    "size",
    [WIDE, SMALL, TALL, (200, 31), (7, 5), (50, 51), (33, 97), (300, 299), (144, 96), (60, 100)],
)
def test_tiles_are_arranged_as_the_processor_does(
    size: tuple[int, int], kind: Kind, loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    inputs = processor(images=picture(*size), text=f"a{kind.image}b", return_tensors="pt")
    family = family_of(model)
    (grid,) = family.grids_of({**inputs, "image_sizes": sizes(size)})["image"]
    cols, rows = CANVAS[kind.name](size[::-1], (SIDE, SIDE), 1, MOST)
    down, across = grid.parts[0].seams
    assert (len(down) + 1, len(across) + 1) == (rows, cols)
    assert len(family.tower_grids(grid)) == len(inputs["pixel_values"])
    assert family.cells(grid).sort().values.tolist() == list(range(grid.size))
    assert grid.size == TOKENS * len(inputs["pixel_values"])


@pytest.mark.parametrize("most", [1, 4, 12])
def test_every_arrangement_of_the_processor_is_found(
    most: int, kind: Kind, loaded: tuple[Any, Any]
) -> None:
    """From the number of tiles that it made, and the size of the picture."""
    family = family_of(loaded[0])
    for height in range(1, 400, 29):
        for width in range(1, 400, 13):
            cols, rows = CANVAS[kind.name]((height, width), (SIDE, SIDE), 1, most)
            found = family._canvas(rows * cols, height, width)  # type: ignore[attr-defined]
            assert found == (rows, cols), (height, width)


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
@pytest.mark.parametrize("size", [WIDE, (90, 190)])
def test_a_mark_lies_in_the_boxes_of_its_cells(
    size: tuple[int, int], square: Square, kind: Kind, loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    inputs = marked_inputs(kind, processor, size, square)
    family = family_of(model)
    (grid,) = family.grids_of({**inputs, "image_sizes": sizes(size)})["image"]
    pixels = inputs["pixel_values"]
    low, high = (f(pixels, dim=(0, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    bright = (pixels > low + 0.3 * (high - low)).any(1)
    tokens = bright.unflatten(1, (3, -1)).unflatten(3, (3, -1)).any(4).any(2).flatten()
    by_cell = torch.empty_like(tokens)
    by_cell[family.cells(grid)] = tokens
    boxes, first = boxes_of(grid, size), grid.parts[0].size
    for part in (slice(0, first), slice(first, None)):
        assert_mark_in_boxes(boxes[part], by_cell[part].numpy(), square)


def test_tokens_of_a_tile_go_row_by_row(kind: Kind, loaded: tuple[Any, Any]) -> None:
    """What pixel shuffle makes of features that say where their patch is."""
    model, _ = loaded
    side = SIDE // 8
    rows, cols = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    where = torch.stack([rows, cols], -1).flatten(0, 1)[None].float()
    joined = model.model.multi_modal_projector.pixel_shuffle(where).reshape(TOKENS, 4, 2)
    assert joined.amin(1).tolist() == [[2.0 * (n // 3), 2.0 * (n % 3)] for n in range(TOKENS)]


def test_images_are_told_from_tiles(kind: Kind, loaded: tuple[Any, Any]) -> None:
    """Three images in two rows, of one tile and of several; the budget is the image's."""
    model, processor = loaded
    inputs = encoded(kind, processor, "what I is I this?", "and I?")
    case = case_of(kind, loaded, "I")
    spots = case.prompts.spots(inputs["input_ids"])
    with prunus.prune(model, CLSE(keep=0.25)) as run, torch.no_grad():
        model(**inputs)
    wanted = [[len(places) for places in row] for row in spots]
    assert [[grid.size for grid in row] for row in run.trace[0].grid] == wanted
    assert [[len(k) for k in row] for row in run.trace[0].kept] == [
        [count // 4 for count in row] for row in wanted
    ]
    assert len({count for row in wanted for count in row}) > 1
    for row in run.trace[0].grid:
        for grid in row:
            assert grid.size == TOKENS or (isinstance(grid, Tiles) and grid.loose)


def test_costs(kind: Kind, loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(kind, loaded, "I").prompts.rows(2)
    del inputs["attention_mask"]
    assert assert_costs(model, inputs, Uniform(keep=5))["uncounted"] == {}


def test_features_computed_beforehand(kind: Kind, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(kind, processor, "what I is I this?")
    with prunus.prune(model, CLSE(keep=5)), torch.no_grad():
        expected = model(**inputs).logits
        features = {"image": model.get_image_features(inputs.pop("pixel_values"))}
        assert gap(model(**inputs, mm_encoder_outputs=features).logits, expected) < 1e-6
        embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
        found = model(inputs_embeds=embeds, **inputs, mm_encoder_outputs=features).logits
    assert gap(found, expected) < 1e-6


def test_what_is_refused(kind: Kind, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    with pytest.raises(PrunusError, match=f"vision tower.*{kind.name}.*pixel shuffle"):
        prunus.prune(model, EvoPrune(keep=5)).attach()
    inputs = encoded(kind, processor, "what I is this?")
    with prunus.prune(model, Uniform(keep=5)), torch.no_grad():
        with pytest.raises(PrunusError, match=r"shape \(2, 2\).*each of the 1 image"):
            model(**inputs, image_sizes=sizes(WIDE, WIDE))
    ids = inputs["input_ids"]
    short = ids.clone()
    short[0, (ids[0] == model.config.image_token_id).nonzero()[0, 0]] = 5
    with pytest.raises(PrunusError, match="8 image placeholders is no tile of 9 tokens"):
        family_of(model).grids_of({**inputs, "input_ids": short})


def test_towers_that_are_refused() -> None:
    model, _ = AYA_VISION.build()
    model.config.vision_feature_select_strategy = "default"
    with pytest.raises(PrunusError, match="'default' is not supported.*square"):
        prunus.prune(model, Uniform(keep=5))
