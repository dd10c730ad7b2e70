"""InternVL, loaded from disk with its real processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

import prunus
from prunus import CLSE, EvoPrune, Fixed, Uniform
from prunus.cli import main
from prunus.errors import PrunusError
from prunus.evaluate.coverage import coverage
from prunus.families import family_of
from prunus.grid import Grid, Tiles
from prunus.inference.inputs import process
from prunus.tasks.scenes import Scene
from prunus.tasks.sets import Clip
from prunus.viz.as_seen import pictures_as_seen
from tests.support.families import SMALL, TALL, WIDE, clip, encoded, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.internvl import INTERNVL, MOST, SIDE, TOKENS

ORDINARY = (("I", "released"), ("V", "before"))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(INTERNVL, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("signs", "method"),
    [
        pytest.param(signs, name, marks=() if (signs, name) in ORDINARY else pytest.mark.full)
        for signs, names in (("I", METHODS), ("V", ("before", "uniform")))
        for name in names
    ],
)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, signs: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(INTERNVL, loaded, signs), METHODS[method])


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_merging_in_the_tower(name: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(INTERNVL, loaded, "I"), EvoPrune(keep=0.5))


def sizes(*given: tuple[int, int]) -> Tensor:
    """``image_sizes`` of pictures of these widths and heights."""
    return torch.tensor([[height, width] for width, height in given])


@pytest.mark.parametrize(
    "size",
    [WIDE, SMALL, TALL, (200, 31), (7, 5), (50, 51), (33, 97), (300, 299), (144, 96), (60, 100)],
)
def test_tiles_are_arranged_as_the_processor_does(
    size: tuple[int, int], loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    inputs = processor(images=picture(*size), text="a<IMG_CONTEXT>b", return_tensors="pt")
    family = family_of(model)
    (grid,) = family.grids_of({**inputs, "image_sizes": sizes(size)})["image"]
    cols, rows = get_optimal_tiled_canvas(size[::-1], (SIDE, SIDE), 1, MOST)
    (down, across) = grid.parts[0].seams
    assert (len(down) + 1, len(across) + 1) == (rows, cols)
    assert len(family.tower_grids(grid)) == len(inputs["pixel_values"])
    assert family.cells(grid).sort().values.tolist() == list(range(grid.size))
    assert grid.size == TOKENS * len(inputs["pixel_values"])


@pytest.mark.parametrize("size", [(1, 1), (10, 16), (100, 160), (40, 30), (400, 300)])
@pytest.mark.parametrize("tiles", range(1, 13))
def test_of_equally_near_arrangements_the_processors(tiles: int, size: tuple[int, int]) -> None:
    """Also where no other number of tiles would have been nearer (``min_patches``)."""
    from prunus.families.tiles import canvas_by_aspect

    for width in range(1, 4 * size[0], 3):
        cols, rows = get_optimal_tiled_canvas((size[1], width), (16, 16), tiles, tiles)
        assert canvas_by_aspect(tiles, Grid(1, 2, 2, (8, 8)), size[1], width) == (rows, cols)


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
@pytest.mark.parametrize("size", [WIDE, (90, 64), (90, 190)])
def test_a_mark_lies_in_the_boxes_of_its_cells(
    size: tuple[int, int], square: Square, loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    inputs = marked_inputs(INTERNVL, processor, size, square)
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
    (seen,) = pictures_as_seen(processor, inputs, [], [grid])
    left, top, side = square
    across, down = grid.parts[0].cols * 16 / size[0], grid.parts[0].rows * 16 / size[1]
    middle = seen[0][round((top + side / 2) * down), round((left + side / 2) * across)]
    assert middle.min() > 0.9 and seen[0].mean() < 0.5


@pytest.mark.parametrize("beams", [None, 1, 3])
def test_sizes_say_which_cell_is_which_token_and_nothing_else(
    beams: int | None, loaded: tuple[Any, Any]
) -> None:
    """The same tokens by two names: in reading order of the whole picture, and tile by tile."""
    model, processor = loaded
    inputs = encoded(INTERNVL, processor, "I and I?", "what I is this?")
    told = {**inputs, "image_sizes": sizes(WIDE, SMALL, TALL)}
    cells = [family_of(model).cells(g) for g in family_of(model).grids_of(told)["image"]]
    chosen = [[3, 4, 8, 11, 17, 22], [2, 9, 30, 31, 44, 60], [0, 1, 13, 20]]
    renamed = [
        sorted(own.argsort()[kept].tolist()) for own, kept in zip(cells, chosen, strict=True)
    ]
    assert renamed[0] != chosen[0] and renamed[1] != chosen[1] and renamed[2] == chosen[2]

    def run(given: dict[str, Tensor], kept: list[list[int]]) -> tuple[Any, Any]:
        method = Fixed([kept[:2], kept[2:]], layer=2)
        with prunus.prune(model, method) as pruned, torch.no_grad():
            if beams is None:
                return model(**given).logits, pruned.trace
            settings = {"max_new_tokens": 4, "num_beams": beams, "output_logits": True}
            out = model.generate(**given, **settings, return_dict_in_generate=True)
            return torch.stack(out.logits), pruned.trace

    (known, trace), (unknown, _) = run(told, chosen), run(inputs, renamed)
    torch.testing.assert_close(known, unknown)
    assert [[g.parts[0].seams for g in row] for row in trace[0].grid] == [
        [((), (3,)), ((3,), (3, 6))],
        [((3,), ())],
    ]


def test_one_budget_for_all_tiles_of_an_image(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(INTERNVL, processor, "what I is I this?")
    with prunus.prune(model, CLSE(keep=0.25)) as run, torch.no_grad():
        model(**inputs)
    assert [len(kept) for kept in run.trace[0].kept[0]] == [27 // 4, 63 // 4]


def test_frames_of_a_video_are_images(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(INTERNVL, processor, "V what I is this?")
    with prunus.prune(model, Uniform(keep=5)) as run, torch.no_grad():
        model(**inputs)
    assert [grid.size for grid in run.trace[0].grid[0]] == [TOKENS] * 3 + [3 * TOKENS]


def test_a_prompt_of_the_commands_says_how_large_its_pictures_are(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    family, film = family_of(model), Clip(clip(2, *SMALL), 2.0)
    pictures, text = [picture(*WIDE), picture(*TALL)], "a<IMG_CONTEXT>b<video>c<IMG_CONTEXT>d"
    inputs = process(processor, text, pictures, [film], family)
    assert torch.equal(inputs["image_sizes"], sizes(WIDE, SMALL, SMALL, TALL))
    areas = [grid.parts[0].area for grid in family.grids_of(inputs)["image"]]
    assert [area[2:] for area in areas if area] == [WIDE, SMALL, SMALL, TALL]
    assert "image_sizes" not in process(processor, "a b c", family=family)


@pytest.mark.parametrize("method", [CLSE(keep=5), EvoPrune(keep=5)])
@pytest.mark.parametrize("signs", ["I", "V"])
def test_costs(signs: str, method: Any, loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(INTERNVL, loaded, signs).prompts.rows(2)
    del inputs["attention_mask"]
    if signs == "I":
        inputs["image_sizes"] = sizes(WIDE, SMALL)
    report = assert_costs(model, inputs, method)
    assert report["uncounted"] == {}


def test_merges_are_told_in_cells_of_the_whole_picture(loaded: tuple[Any, Any]) -> None:
    """With and without sizes the tower does the same; what is left has the numbers of its cells."""
    model, processor = loaded
    inputs = encoded(INTERNVL, processor, "I and I?", "what I is this?")
    told = {**inputs, "image_sizes": sizes(WIDE, SMALL, TALL)}
    grids = family_of(model).grids_of(told)["image"]
    found = []
    for given in (told, inputs):
        with prunus.prune(model, EvoPrune(keep=5)) as run, torch.no_grad():
            found.append((model(**given).logits, run.trace[0]))
        (again,) = Fixed.replay(run.trace)
        with prunus.prune(model, again), torch.no_grad():
            torch.testing.assert_close(model(**given).logits, found[-1][0])
    torch.testing.assert_close(found[0][0], found[1][0])
    known, loose = (
        [
            (kept, into, steps)
            for sample in zip(entry.kept, entry.merged_into, entry.steps, strict=True)
            for kept, into, steps in zip(*sample, strict=True)
        ]
        for _, entry in found
    )
    moved = 0
    for grid, (kept, into, steps), (kept_too, into_too, steps_too) in zip(
        grids, known, loose, strict=True
    ):
        cells = family_of(model).cells(grid)  # of each token, tile by tile
        assert len(kept) == 5 * grid.pieces
        assert kept.tolist() == cells[kept_too].sort().values.tolist()
        assert torch.equal(into[cells], cells[into_too])
        for (block, gone, _), (block_too, gone_too, _) in zip(steps, steps_too, strict=True):
            assert block == block_too and torch.equal(gone, cells[gone_too])
        moved += kept.tolist() != kept_too.tolist()
    assert moved == 2  # of the third picture, tiles lie below each other


def test_kept_tokens_are_drawn(
    loaded: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, processor = loaded
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    picture(*WIDE).save(tmp_path / "a.png")
    overlay = tmp_path / "kept.png"
    arguments = ["run", str(tmp_path / "a.png"), "--prompt", "what?", "--keep", "9"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--model", str(tmp_path / "model"), "--save-overlay", str(overlay)])
    assert not end.value.code and overlay.stat().st_size > 1000


def test_tiles_that_lie_nowhere_are_drawn_one_by_one(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = processor(images=picture(*WIDE), text="a<IMG_CONTEXT>b", return_tensors="pt")
    (grid,) = family_of(model).grids_of(inputs)["image"]
    assert isinstance(grid, Tiles) and grid.loose == 2
    (loose,) = pictures_as_seen(processor, inputs, [], [grid])
    (whole,) = family_of(model).grids_of({**inputs, "image_sizes": sizes(WIDE)})["image"]
    ((together, thumbnail),) = pictures_as_seen(processor, inputs, [], [whole])
    np.testing.assert_array_equal(together, np.concatenate(loose[:2], axis=1))
    np.testing.assert_array_equal(thumbnail, loose[2])
    with pytest.raises(PrunusError, match="not known where the tiles.*image_sizes"):
        coverage(Scene(0, ()), grid)


def test_features_computed_beforehand(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(INTERNVL, processor, "what I is I this?")
    with prunus.prune(model, CLSE(keep=5)), torch.no_grad():
        expected = model(**inputs).logits
        features = {"image": model.get_image_features(inputs.pop("pixel_values"))}
        assert torch.equal(model(**inputs, mm_encoder_outputs=features).logits, expected)
        embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
        found = model(inputs_embeds=embeds, **inputs, mm_encoder_outputs=features).logits
    assert torch.equal(found, expected)


def test_what_is_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(INTERNVL, processor, "what I is this?")
    with prunus.prune(model, Uniform(keep=5)), torch.no_grad():
        with pytest.raises(PrunusError, match=r"shape \(2, 2\).*each of the 1 image"):
            model(**inputs, image_sizes=sizes(WIDE, WIDE))
    inputs["input_ids"][inputs["input_ids"] == model.config.image_token_id] = 0
    inputs["input_ids"][0, :25] = model.config.image_token_id
    with pytest.raises(PrunusError, match="25 image placeholders does not fit tiles of 9 tokens"):
        family_of(model).grids_of(inputs)
    other, _ = INTERNVL.build()
    other.config.vision_feature_select_strategy = "full"
    with pytest.raises(PrunusError, match="'full' is not supported"):
        prunus.prune(other, Uniform(keep=5))
    other.config.vision_feature_select_strategy = "default"
    other.config.vision_feature_layer = 1
    with pytest.raises(PrunusError, match="vision_feature_layer=1.*last block"):
        prunus.prune(other, EvoPrune(keep=5)).attach()
    other.config.vision_config.image_size = (48, 64)
    with pytest.raises(PrunusError, match="48x64 pixels.*for a square"):
        prunus.prune(other, Uniform(keep=5))
