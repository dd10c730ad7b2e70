"""Ovis2, loaded from disk with its real processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune
from prunus.cli import main
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.families.ovis2 import Ovis2
from prunus.viz.as_seen import pictures_as_seen
from tests.support.families import SMALL, TALL, WIDE, encoded, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.ovis2 import LINE, OVIS2, PATCH, ovis2

ORDINARY = ("before", "released")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(OVIS2, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    "method",
    [pytest.param(n, marks=() if n in ORDINARY else pytest.mark.full) for n in METHODS],
)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(OVIS2, loaded, "I"), METHODS[method])


@pytest.mark.parametrize(
    "size", [WIDE, SMALL, TALL, (200, 31), (31, 200), (7, 5), (50, 51), (150, 110), (300, 299)]
)
def test_tiles_are_arranged_as_the_processor_does(
    size: tuple[int, int], loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    inputs = processor(images=picture(*size), text="a<image>b", return_tensors="pt")
    family = family_of(model)
    (grid,) = family.grids_of(inputs)["image"]
    ((rows, cols),) = processor.image_processor(picture(*size), return_tensors="pt")["grids"]
    (down, across) = grid.parts[-1].seams
    assert (len(down) + 1, len(across) + 1) == (rows, cols)
    assert len(grid.parts) == (1 if rows * cols == 1 else 2)
    assert len(family.tower_grids(grid)) == len(inputs["pixel_values"])
    assert family.cells(grid).sort().values.tolist() == list(range(grid.size))


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
@pytest.mark.parametrize("size", [WIDE, (90, 64), (90, 190)])
def test_a_mark_lies_in_the_boxes_of_its_cells(
    size: tuple[int, int], square: Square, loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    inputs = marked_inputs(OVIS2, processor, size, square)
    family = family_of(model)
    (grid,) = family.grids_of(inputs)["image"]
    assert len(grid.parts) == 2
    pixels = inputs["pixel_values"]
    low, high = (f(pixels, dim=(0, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    bright = (pixels > low + 0.3 * (high - low)).any(1)
    tokens = bright.unflatten(1, (LINE, -1)).unflatten(3, (LINE, -1)).any(4).any(2).flatten()
    by_cell = torch.empty_like(tokens)
    by_cell[family.cells(grid)] = tokens
    first = 0
    for part in grid.parts:
        own = by_cell[first : first + part.size].numpy()
        assert_mark_in_boxes(boxes_of(part, size), own, square)
        first += part.size
    (seen,) = pictures_as_seen(processor, inputs, [], [grid])
    left, top, side = square
    cell = 2 * PATCH
    across, down = grid.parts[1].cols * cell / size[0], grid.parts[1].rows * cell / size[1]
    middle = seen[1][round((top + side / 2) * down), round((left + side / 2) * across)]
    assert middle.min() > 0.9 and seen[1].mean() < 0.5


def test_one_budget_for_all_tiles_of_an_image(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(OVIS2, processor, "what I is I this?")
    sizes = [len(places) for _, places in OVIS2.found(model, inputs["input_ids"][0].tolist())]
    with prunus.prune(model, CLSE(keep=0.25)) as run, torch.no_grad():
        model(**inputs)
    assert [len(kept) for kept in run.trace[0].kept[0]] == [size // 4 for size in sizes]
    assert all(size > LINE**2 for size in sizes)


def test_indicators_matter_and_stay(loaded: tuple[Any, Any]) -> None:
    """They are text to prunus, and features of the table to the model."""
    model, processor = loaded
    inputs = encoded(OVIS2, processor, "what I is this?")
    count = torch.isin(
        inputs["input_ids"], torch.tensor(model.config.visual_indicator_token_ids)
    ).sum()
    with prunus.prune(model, CLSE(keep=5)) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    kept = cache.layers[-1].keys.shape[2]
    text = inputs["input_ids"].shape[1] - run.report()["tokens"]["original"]
    assert kept == text + 5 and int(count) > 2
    with torch.no_grad():
        whole = model(**inputs).logits
        model.model.visual_embeddings_table.weight[-5:] *= 2
        assert float((model(**inputs).logits - whole).abs().max()) > 1e-3
        model.model.visual_embeddings_table.weight[-5:] /= 2


def test_costs(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(OVIS2, loaded, "I").prompts.rows(2)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, CLSE(keep=5))
    assert report["uncounted"] == {}
    other, _ = ovis2()
    other.config.vision_config.hidden_stride = 4
    with pytest.raises(PrunusError, match="6 patches a side are padded to squares of 4"):
        Ovis2.tower_shapes(other.config)


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


def test_features_computed_beforehand(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(OVIS2, processor, "what I is I this?")
    with prunus.prune(model, CLSE(keep=5)), torch.no_grad():
        expected = model(**inputs).logits
        features = {"image": model.get_image_features(inputs.pop("pixel_values"))}
        assert torch.equal(model(**inputs, mm_encoder_outputs=features).logits, expected)
        embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
        found = model(inputs_embeds=embeds, **inputs, mm_encoder_outputs=features).logits
    assert torch.equal(found, expected)


def test_what_is_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    with pytest.raises(PrunusError, match="vision tower.*ovis2.*visual words"):
        prunus.prune(model, EvoPrune(keep=5)).attach()
    inputs = processor(images=picture(90, 70), text="a<image>b", return_tensors="pt")
    family, ids = family_of(model), inputs["input_ids"]
    _, grid, column, row, _ = model.config.visual_indicator_token_ids
    token = model.config.image_token_id
    for wrong, message in (
        (grid, "not arranged in rows"),
        (column, "not arranged in rows"),
        (row, "not arranged in rows"),
        (token, "a run of 1 image placeholders is no tile of 9"),
    ):
        changed = ids.clone()
        changed[0, (ids[0] == wrong).nonzero()[1 if wrong == token else 0]] = 7
        with pytest.raises(PrunusError, match=message):
            family.grids_of({**inputs, "input_ids": changed})
