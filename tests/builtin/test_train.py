"""Training stops and goes on without a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.io import checkpoint
from prunus.recipes.answers import draw_tokens
from prunus.recipes.model import Shape
from prunus.recipes.optim import rate_factor
from prunus.recipes.schedule import Stage
from prunus.recipes.train import CHECKPOINT, train

SHAPE = Shape(patch=16, tower_layers=3, tower_width=64, tower_mlp=64, layers=2, width=64, mlp=64)
STAGES = (
    Stage("see", "naming", steps=2, rate=1e-3, batch=2, window=6, per_canvas=2, objects=(8, 12)),
    Stage("few", "answers", steps=2, rate=1e-3, batch=2, tokens=40, reuse=2, questions=4),
    Stage("varied", "answers", steps=2, rate=1e-3, batch=2, tokens=40, most=80, questions=4),
    Stage("all", "answers", steps=2, rate=1e-3, batch=2, tower_rate=0.1, questions=4),
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / CHECKPOINT)["model"]


def test_interrupted_run_is_bit_identical(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(output=whole, stages=STAGES, shape=SHAPE)
    # minutes=0 stops after one step, so that every step starts from a checkpoint
    assert not train(output=broken, stages=STAGES, shape=SHAPE, minutes=0)
    for _ in range(20):
        if train(output=broken, stages=STAGES, shape=SHAPE, minutes=0, resume=True):
            break
    else:
        pytest.fail("the run never ended")
    expected, found = weights(whole), weights(broken)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_training_changes_tower_and_language_model(tmp_path: Path) -> None:
    train(output=tmp_path, stages=STAGES[:1], shape=SHAPE)
    before = weights(tmp_path)
    train(output=tmp_path, stages=STAGES, shape=SHAPE, resume=True)
    after = weights(tmp_path)
    for part in ("vision_tower", "language_model"):
        assert any(part in n and not torch.equal(before[n], after[n]) for n in before)
    assert (tmp_path / "log.jsonl").parent.is_dir()


def test_a_checkpoint_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    train(output=tmp_path, stages=STAGES[:1], shape=SHAPE)
    with pytest.raises(ValueError, match="resume"):
        train(output=tmp_path, stages=STAGES, shape=SHAPE)


def test_unknown_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tiny-llava"):
        train("huge-llava", output=tmp_path)


def test_token_numbers_span_their_range_evenly_in_the_logarithm() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_tokens(72, 576, rng) for _ in range(4000)])
    assert drawn.min() == 72 and drawn.max() == 576
    assert abs((drawn < np.sqrt(72 * 576)).mean() - 0.5) < 0.03
    assert draw_tokens(72, 0, rng) == 72


def test_rate_rises_stays_and_falls() -> None:
    values = [rate_factor(step, 1000) for step in range(1000)]
    assert values[0] < 0.05
    assert values[400] == 1.0
    assert 0.02 <= values[-1] < 0.05
