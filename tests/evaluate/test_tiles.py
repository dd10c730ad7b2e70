"""Evaluation of models that cut images into tiles, or are given features at several layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.cli import main
from prunus.errors import PrunusError
from prunus.evaluate.coverage import best_tokens, coverage
from prunus.grid import Grid, Tiles
from prunus.inference.batches import joined
from prunus.tasks.scenes import CANVAS, ground_truth_tokens, make_scene, object_coverage
from tests.support.families import LLAVA_NEXT, QWEN3_VL, Kind

WHOLE = Grid(1, 6, 6, (8, 8), (0.0, 0.0, 96.0, 96.0))  # scenes drawn at half their size


def test_objects_cover_cells_of_each_part() -> None:
    scene = make_scene(3)
    fine = Grid(1, 12, 8, (8, 8), (0.0, 0.0, 96.0, 96.0))
    half = Grid(1, 4, 3, (8, 8), (48.0, -24.0, 48.0, 96.0))  # its first row lies above the picture
    cover = coverage(scene, Tiles((WHOLE, fine, half)))
    count = len(scene.objects)
    assert cover.shape == (count, 36 + 96 + 12) and cover.dtype == np.float32
    np.testing.assert_array_equal(cover[:, :36], object_coverage(scene, 6, 6).reshape(count, -1))
    expected = object_coverage(scene, 12, 8).reshape(count, -1)
    np.testing.assert_allclose(cover[:, 36:132], expected, atol=1e-5)
    rest = cover[:, 132:].reshape(count, 4, 3)
    assert not rest[:, 0].any()
    eighths = object_coverage(scene, 8, 12).reshape(count, 4, 2, 12).mean(2)  # rows of 1/4 height
    right = eighths[:, :3, 6:].reshape(count, 3, 3, 2).mean(3)
    np.testing.assert_allclose(rest[:, 1:], right, atol=1e-5)
    assert CANVAS == 192


@pytest.mark.parametrize("tiles", [Tiles((WHOLE, WHOLE), loose=1), Tiles((WHOLE,), padded=True)])
def test_objects_are_not_looked_for_in_tiles_that_lie_nobody_knows_where(tiles: Tiles) -> None:
    with pytest.raises(PrunusError, match="not known where the tiles.*image_sizes.*smaller"):
        coverage(make_scene(3), tiles)


def test_the_best_tokens_of_one_grid_are_what_they_were() -> None:
    scene = make_scene(5)
    for keep in (1, 7, 30):
        expected = ground_truth_tokens(scene, [1], keep, 6, 6)
        assert best_tokens(scene, [1], keep, WHOLE).tolist() == expected.tolist()
    found = best_tokens(scene, [1], 9, Tiles((WHOLE, WHOLE)))
    assert len(found) == 9 and {int(n) % 36 for n in found} <= {
        int(n) for n in ground_truth_tokens(scene, [1], 9, 6, 6)
    }


def test_images_of_different_numbers_of_tiles_make_a_batch() -> None:
    parts = [torch.ones(1, 3, 3, 4, 4), torch.ones(1, 5, 3, 4, 4)]
    whole = joined(parts)
    assert whole.shape == (2, 5, 3, 4, 4)
    assert whole[0, :3].all() and not whole[0, 3:].any() and whole[1].all()
    assert torch.equal(joined([parts[0]] * 2), torch.ones(2, 3, 3, 4, 4))
    with pytest.raises(PrunusError, match="different shapes"):
        joined([torch.ones(1, 2), torch.ones(1, 3)])


def test_images_whose_sizes_are_told_are_padded_into_a_batch() -> None:
    wide, tall = torch.ones(1, 3, 2, 4), torch.ones(1, 3, 5, 3)
    whole = joined([wide, tall], sized=True)
    assert whole.shape == (2, 3, 5, 4) and whole.sum() == wide.sum() + tall.sum()
    assert whole[0, :, :2].all() and whole[1, :, :, :3].all()
    with pytest.raises(PrunusError, match="different shapes"):
        joined([wide, tall])


@pytest.mark.parametrize("kind", [LLAVA_NEXT, QWEN3_VL], ids=lambda kind: kind.name)
def test_an_evaluation(kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind.save(tmp_path)
    arguments = ["--methods", "uniform,ground-truth", "--keep", "0.25", "--limit", "4", "--json"]
    with pytest.raises(SystemExit) as end:
        main(["eval", "--model", str(tmp_path), *arguments])
    assert not end.value.code
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["name"] for row in rows} >= {"dense", "uniform", "ground-truth"}
