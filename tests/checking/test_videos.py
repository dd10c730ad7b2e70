"""A check asks about videos as well, where a model takes them."""

from __future__ import annotations

import pytest

import prunus
from prunus.checking.probe import from_processor
from prunus.errors import PrunusError
from prunus.families import family_of
from tests.support.families import QWEN3_VL
from tests.support.kinds.llava import LLAVA_CLIP
from tests.support.kinds.llava_onevision import LLAVA_ONEVISION
from tests.support.matrix import load


def test_videos_of_a_model_that_takes_them() -> None:
    model, processor = load(QWEN3_VL)
    batch = from_processor(family_of(model), processor, 2, video=True).batch
    assert "pixel_values_videos" in batch and "pixel_values" not in batch
    report = prunus.check(model, processor, ["clse"], video=True, steps=2)
    assert {row.status for row in report.rows} == {"ok"}, str(report)


def test_what_goes_around_a_pooling() -> None:
    """The trace counts tokens of the tower, of which there are more than the prompt has places."""
    model, processor = load(LLAVA_ONEVISION)
    report = prunus.check(model, processor, ["tome"], video=True, steps=2)
    assert {row.status for row in report.rows} == {"ok"}, str(report)


def test_a_model_that_takes_images_only() -> None:
    model, processor = load(LLAVA_CLIP)
    with pytest.raises(PrunusError, match="video"):
        prunus.check(model, processor, ["clse"], video=True)
