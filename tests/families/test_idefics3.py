"""Idefics3 and SmolVLM, loaded from disk with their real processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Uniform
from prunus.cli import main
from prunus.errors import PrunusError
from prunus.families import family_of
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
from tests.support.kinds.idefics3 import CHAT, IDEFICS3, LINE, SIZES, SMOLVLM, smolvlm, words

ORDINARY = {("idefics3", "released"), ("smolvlm", "before")}
KINDS = {kind.name: kind for kind in (IDEFICS3, SMOLVLM)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    return {name: load(kind, tmp_path_factory.mktemp(name)) for name, kind in KINDS.items()}


@pytest.fixture
def loaded(models: dict[str, tuple[Any, Any]]) -> tuple[Any, Any]:
    return models["idefics3"]


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        pytest.param(kind, name, marks=() if (kind, name) in ORDINARY else pytest.mark.full)
        for kind in KINDS
        for name in METHODS
    ],
)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, kind: str, method: str, models: Any) -> None:
    hold(name, case_of(KINDS[kind], models[kind], "I"), METHODS[method])


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_merging_in_the_tower(name: str, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(IDEFICS3, loaded, "I"), EvoPrune(keep=0.5))


@pytest.mark.parametrize("size", [WIDE, SMALL, TALL, (200, 31), (7, 5), (50, 51), (33, 97)])
def test_tiles_are_arranged_as_the_processor_does(
    size: tuple[int, int], loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    inputs = processor(images=picture(*size), text="a<image>b", return_tensors="pt")
    family = family_of(model)
    (grid,) = family.grids_of(inputs)["image"]
    seen = processor.image_processor(picture(*size), return_row_col_info=True)
    rows, cols = seen["rows"][0][0], seen["cols"][0][0]
    (down, across) = grid.parts[0].seams
    assert (len(down) + 1, len(across) + 1) == (rows, cols)
    assert len(family.tower_grids(grid)) == rows * cols + 1 == inputs["pixel_values"].shape[1]
    assert family.cells(grid).sort().values.tolist() == list(range(grid.size))


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
@pytest.mark.parametrize("size", [WIDE, (90, 64), (90, 190)])
def test_a_mark_lies_in_the_boxes_of_its_cells(
    size: tuple[int, int], square: Square, loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    inputs = marked_inputs(IDEFICS3, processor, size, square)
    family = family_of(model)
    (grid,) = family.grids_of(inputs)["image"]
    pixels = inputs["pixel_values"][0]
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
    assert [one.shape[:2] for one in seen] == [(16 * p.rows, 16 * p.cols) for p in grid.parts]
    left, top, side = square
    across, down = grid.parts[0].cols * 16 / size[0], grid.parts[0].rows * 16 / size[1]
    middle = seen[0][round((top + side / 2) * down), round((left + side / 2) * across)]
    assert middle.min() > 0.9 and seen[0].mean() < 0.5


def test_an_image_that_is_not_cut_is_one_grid(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    given = {"images": [picture(*WIDE), picture(*TALL)], "text": "a<image> and <image>?"}
    inputs = processor(**given, do_image_splitting=False, return_tensors="pt")
    with prunus.prune(model, CLSE(keep=4)) as run, torch.no_grad():
        model(**inputs)
    assert [grid.size for grid in run.trace[0].grid[0]] == [LINE**2] * 2
    assert [len(kept) for kept in run.trace[0].kept[0]] == [4, 4]


def test_one_budget_for_all_tiles_of_an_image(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(IDEFICS3, processor, "what I is I this?")
    with prunus.prune(model, CLSE(keep=0.25)) as run, torch.no_grad():
        model(**inputs)
    assert [len(kept) for kept in run.trace[0].kept[0]] == [27 // 4, 45 // 4]
    assert [grid.parts[0].seams for grid in run.trace[0].grid[0]] == [((), (3,)), ((3,), (3,))]


@pytest.mark.parametrize(
    ("kind", "method"), [("idefics3", CLSE(keep=5)), ("smolvlm", EvoPrune(keep=5))]
)
def test_costs(kind: str, method: Any, models: Any) -> None:
    model, _ = models[kind]
    inputs = case_of(KINDS[kind], models[kind], "I").prompts.rows(2)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, method)
    assert report["uncounted"] == {}


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


def test_frames_of_a_video_are_images(loaded: tuple[Any, Any]) -> None:
    """With SmolVLM's own processor."""
    pytest.importorskip("num2words", reason="SmolVLM's processor needs it")
    from transformers import SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    model, _ = smolvlm()
    sampling = {"fps": 1, "max_frames": 4, "video_size": {"longest_edge": 48}}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**SIZES),
        words(),
        SmolVLMVideoProcessor(**SIZES, num_frames=4, fps=1, video_sampling=sampling),
        image_seq_len=LINE**2,
        chat_template=CHAT,
    )
    still = processor(images=[picture(*WIDE)], text=["a<image>b"], return_tensors="pt")
    assert [g.size for g in family_of(model).grids_of(still)["image"]] == [27]
    frames = clip(3, *SMALL)
    times = [{"fps": 1, "total_num_frames": 3, "frames_indices": [0, 1, 2]}]
    inputs = processor(
        videos=[frames],
        text=["a <video> what?"],
        video_metadata=times,
        do_sample_frames=False,
        return_tensors="pt",
    )
    with prunus.prune(model, Uniform(keep=5)) as run, torch.no_grad():
        model(**inputs)
    grids = run.trace[0].grid[0]
    assert [grid.size for grid in grids] == [LINE**2] * 3
    seen = pictures_as_seen(processor, inputs, [[frame] for frame in frames], grids)
    assert [np.shape(own) for own in seen] == [(1, 48, 48, 3)] * 3


def test_features_computed_beforehand(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(IDEFICS3, processor, "what I is I this?")
    pixels = {name: inputs.pop(name) for name in ("pixel_values", "pixel_attention_mask")}
    with prunus.prune(model, CLSE(keep=5)), torch.no_grad():
        expected = model(**inputs, **pixels).logits
        features = {"image": model.get_image_features(**pixels)}
        assert torch.equal(model(**inputs, mm_encoder_outputs=features).logits, expected)
        embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
        with pytest.raises(PrunusError, match="does not say how large"):
            model(inputs_embeds=embeds, **inputs, mm_encoder_outputs=features)


def test_what_is_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(IDEFICS3, processor, "what I is this?")
    family, (row,) = family_of(model), inputs["input_ids"]
    token = model.config.image_token_id
    first = int((row == token).nonzero()[0])
    for change, message in (
        ([7, 7, *[token] * 9], "not clear which tiles are of one image"),
        ([*row[first - 2 : first].tolist(), *[token] * 7, 7, 7], "9 image|7 image placeholders"),
    ):
        changed = row.clone()
        changed[first - 2 : first + 9] = torch.tensor(change)
        with pytest.raises(PrunusError, match=message):
            family.grids_of({**inputs, "input_ids": changed[None]})
    breaks = (row == words().convert_tokens_to_ids("Ċ")).nonzero().flatten().tolist()
    assert len(breaks) == 2  # behind the one row of tiles, and in front of the whole picture
    joined = torch.cat([row[: breaks[0]], row[breaks[-1] + 1 :]])
    with pytest.raises(PrunusError, match="2 tiles.*not arranged in rows"):
        family.grids_of({**inputs, "input_ids": joined[None]})
