"""Scenes are plain, deterministic data, and masks tell the truth about pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prunus.tasks.digits import SPLITS, digit_data, split_indices
from prunus.tasks.scenes import (
    CANVAS,
    Scene,
    ground_truth_tokens,
    make_scene,
    object_coverage,
    object_mask,
    render_array,
)

SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
def test_same_seed_same_scene_and_picture(seed: int) -> None:
    first, second = make_scene(seed), make_scene(seed)
    assert first == second
    assert np.array_equal(render_array(first), render_array(second))
    assert render_array(first).shape == (CANVAS, CANVAS, 3)


def test_other_seed_other_scene() -> None:
    assert make_scene(1) != make_scene(2)


@pytest.mark.parametrize("seed", SEEDS)
def test_json_round_trip(seed: int) -> None:
    scene = make_scene(seed, "test")
    line = scene.to_json()
    assert "\n" not in line
    assert Scene.from_json(line) == scene


def test_digit_splits_are_disjoint_and_complete() -> None:
    parts = [set(split_indices(split).tolist()) for split in SPLITS]
    assert sum(len(part) for part in parts) == len(set().union(*parts)) == len(digit_data()[1])


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="train, val, test"):
        split_indices("all")  # type: ignore[arg-type]


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_use_digits_of_their_split_only(split: str) -> None:
    allowed = set(split_indices(split).tolist())  # type: ignore[arg-type]
    used = {
        item.digit_id
        for seed in range(60)
        for item in make_scene(seed, split).objects  # type: ignore[arg-type]
        if item.kind == "digit"
    }
    assert used
    assert used <= allowed


@pytest.mark.parametrize("seed", range(40))
def test_objects_lie_inside_and_apart(seed: int) -> None:
    scene = make_scene(seed)
    drawn = np.zeros((CANVAS, CANVAS), dtype=int)
    for item in scene.objects:
        assert 0 <= item.x <= CANVAS - item.size
        assert 0 <= item.y <= CANVAS - item.size
        assert 16 <= item.size <= 32
        drawn[item.y : item.y + item.size, item.x : item.x + item.size] += 1
    assert drawn.max() <= 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("grid", [(24, 24), (12, 16)])
def test_masks_cover_every_pixel_that_an_object_changes(seed: int, grid: tuple[int, int]) -> None:
    scene = make_scene(seed)
    with_objects = render_array(scene).astype(int)
    without = render_array(replace(scene, objects=())).astype(int)
    changed = np.abs(with_objects - without).max(axis=2) > 0
    rows, cols = grid
    patches = changed.reshape(rows, CANVAS // rows, cols, CANVAS // cols).any(axis=(1, 3))
    mask = object_mask(scene, rows, cols)
    assert mask.shape == (len(scene.objects), rows, cols)
    assert not (patches & ~mask.any(axis=0)).any()


def test_about_a_tenth_of_the_patches_show_an_object() -> None:
    share = np.mean([object_mask(make_scene(seed)).any(axis=0).mean() for seed in range(200)])
    assert 0.07 < share < 0.12


def test_grid_without_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        object_coverage(make_scene(0), 0, 24)


def test_ground_truth_takes_objects_asked_about_first() -> None:
    scene = make_scene(3)
    mask = object_mask(scene).reshape(len(scene.objects), -1)
    for asked in range(len(scene.objects)):
        size = int(mask[asked].sum())
        assert set(ground_truth_tokens(scene, [asked], size)) == set(np.flatnonzero(mask[asked]))
    kept = ground_truth_tokens(scene, [0], 64)
    assert len(kept) == len(set(kept.tolist())) == 64
    assert (np.diff(kept) > 0).all()
    assert set(np.flatnonzero(mask[0])) <= set(kept.tolist())
