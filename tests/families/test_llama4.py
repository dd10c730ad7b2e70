"""Llama 4, loaded from disk with its real processor: tiles with separators, chunked attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Fixed, Method, Random, Uniform
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.grid import Grid, Tiles
from tests.support.families import encoded, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.llama4 import LLAMA4, SIDE, TOKENS
from tests.support.llava import DEPTH
from tests.support.oracles.masked import continued, masked_logits, visibility

#: The unmodified model does not take the features of an image along to its beams.
HELD = [name for name in INVARIANTS if name != "beams_score_as_the_oracle_does"]
WAYS: dict[str, Method] = {**METHODS, "late": Fixed([0, 3, 7, 8], layer=3)}
FEW = ("before", "released")
MANY = [pytest.param(way, marks=() if way in FEW else pytest.mark.full) for way in WAYS]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(LLAMA4, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("method", MANY)
@pytest.mark.parametrize("name", HELD)
def test_invariants(name: str, method: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(LLAMA4, loaded, "I"), WAYS[method])


def test_beams_fail_as_in_the_unmodified_model(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(LLAMA4, processor, "what I is this?")
    call = {**inputs, "max_new_tokens": 2, "num_beams": 2}
    with pytest.raises(ValueError, match="do not match") as plain:
        model.generate(**call)
    with prunus.prune(model, Random(keep=5, layer=None)):
        with pytest.raises(ValueError, match="do not match") as pruned:
            model.generate(**call)
    assert str(pruned.value) == str(plain.value)


@pytest.mark.parametrize(
    "size", [(40, 30), (48, 48), (88, 40), (40, 72), (100, 90), (200, 31), (30, 200), (7, 5)]
)
def test_tiles_are_arranged_as_the_processor_does(
    size: tuple[int, int], loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    seen = processor.image_processor(picture(*size), return_tensors="pt")
    ((rows, cols),) = seen["aspect_ratios"].tolist()
    inputs = processor(images=picture(*size), text="a<|image|>b", return_tensors="pt")
    family = family_of(model)
    (grid,) = family.grids_of(inputs)["image"]
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    outside = {"inputs_embeds": embeds, "mm_encoder_outputs": {"image": object()}}
    assert family.grids_of(outside)["image"] == [grid]
    assert len(family.tower_grids(grid)) == len(inputs["pixel_values"])
    assert family.cells(grid).sort().values.tolist() == list(range(grid.size))
    if rows * cols == 1:
        assert grid == Grid(1, 3, 3, (16, 16))
        return
    assert isinstance(grid, Tiles) and grid.padded
    tiles, overview = grid.parts
    assert (tiles.rows, tiles.cols) == (3 * rows, 3 * cols) and overview.size == TOKENS


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, loaded: tuple[Any, Any]) -> None:
    """In the picture as it is seen: resized to fit, and padded below, in a canvas of two tiles; and
    stretched to one tile, the overview."""
    model, processor = loaded
    wide, high = 90, 43
    inputs = marked_inputs(LLAMA4, processor, (wide, high), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    tiles, _ = grid.parts
    assert (tiles.rows, tiles.cols) == (3, 6) and len(inputs["pixel_values"]) == 3
    cells = inputs["pixel_values"].float().unfold(2, 16, 16).unfold(3, 16, 16)
    bright = (cells > 0).any(1).flatten(3).any(-1).view(len(cells), TOKENS)
    order = family_of(model).cells(grid)
    by_cell = torch.zeros(grid.size, dtype=torch.bool)
    by_cell[order] = bright.flatten()
    boxes = np.array([grid.box(cell)[1:] for cell in range(grid.size)])
    left, top, side = square
    scale = SIDE * 2 / wide if SIDE * 2 / wide * high <= SIDE else SIDE / high
    scale = min(scale, 1.0) if max(wide, high) >= SIDE else scale
    marked = [round(one * scale) for one in (left, top, side)]
    ours = by_cell[: tiles.size].numpy()
    assert_mark_in_boxes(boxes[: tiles.size], ours, (marked[0], marked[1], marked[2]))
    across, down = SIDE / wide, SIDE / high
    rest = boxes[tiles.size :] / [across, down, across, down]
    assert_mark_in_boxes(rest, by_cell[tiles.size :].numpy(), square)


def test_costs(loaded: tuple[Any, Any]) -> None:
    """Every token goes to all experts here, which those it was not sent to give nothing."""
    model, _ = loaded
    inputs = case_of(LLAMA4, loaded, "I").prompts.rows(2)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, CLSE(keep=5))
    assert report["uncounted"] == {}


def test_prompts_of_which_layers_count_the_tokens_are_refused(loaded: tuple[Any, Any]) -> None:
    """Temperature tuning begins at position 255 here, and at 8191 in published models."""
    model, processor = loaded
    long = encoded(LLAMA4, processor, "what I is this?" + "?" * 220)
    longest = int(model.config.text_config.floor_scale) - 1
    assert long["input_ids"].shape[1] > longest
    with prunus.prune(model, Uniform(keep=5)), torch.no_grad():
        with pytest.raises(PrunusError, match="too long to prune.*temperature.*at most 255"):
            model(**long)
        short = {
            name: x[:, :longest] if name in ("input_ids", "attention_mask") else x
            for name, x in long.items()
        }
        model(**short)


def test_decoding_where_the_temperature_is_not_one(loaded: tuple[Any, Any]) -> None:
    """Later tokens go by the logical length of the cache, far behind what it holds."""
    model, processor = loaded
    inputs = encoded(LLAMA4, processor, "what I is this?" + "?" * 190)
    start = inputs["input_ids"].shape[1]
    assert start < 255
    with prunus.prune(model, Random(keep=5, layer=None)) as run:
        out = model.generate(
            **inputs,
            max_new_tokens=40,
            min_new_tokens=40,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    assert start + 40 > 260
    full = continued(inputs, out.sequences)
    spots = case_of(LLAMA4, loaded, "I").prompts.spots(inputs["input_ids"])
    visible = visibility(run.trace, spots, full["attention_mask"], DEPTH, start)
    expected = masked_logits(model, full, visible)[:, start - 1 : start + 39]
    assert float((torch.stack(out.logits, 1) - expected).abs().max()) < 1e-4


def test_embeddings_and_features_from_outside(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(LLAMA4, processor, "what I is this?")
    pixels, ids = inputs.pop("pixel_values"), inputs["input_ids"]
    with prunus.prune(model, Uniform(keep=5)) as run, torch.no_grad():
        expected = model(**inputs, pixel_values=pixels).logits
        kept = run.trace[0].kept
        features = {"image": model.get_image_features(pixels, return_dict=True)}
        given = model(**inputs, mm_encoder_outputs=features).logits
        inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
        embedded = model(**inputs, mm_encoder_outputs=features).logits
        assert [len(image) for row in run.trace[0].kept for image in row] == [len(kept[0][0])]
    for logits in (given, embedded):
        assert float((logits - expected).abs().max()) < 1e-5
    assert ids.shape[1] == expected.shape[1]


def test_merging_in_the_tower_is_refused(loaded: tuple[Any, Any]) -> None:
    with pytest.raises(PrunusError, match="joins squares of patches by their places"):
        prunus.prune(loaded[0], EvoPrune(keep=0.5))


def test_placeholders_that_are_no_tiles_are_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(LLAMA4, processor, "what I is this?")
    ids, cell = inputs["input_ids"], model.config.image_token_id
    end = int((ids[0] == model.config.eoi_token_id).nonzero())
    family, pixels = family_of(model), inputs["pixel_values"]
    unended = ids.clone()
    unended[0, end] = 65
    with pytest.raises(PrunusError, match="not followed by the token that ends an image"):
        family.grids_of({"input_ids": unended, "pixel_values": pixels})
    longer = ids.clone()
    longer[0, int((ids[0] == cell).nonzero()[0]) - 1] = cell
    with pytest.raises(PrunusError, match="is no tile of 9 tokens"):
        family.grids_of({"input_ids": longer, "pixel_values": pixels})
