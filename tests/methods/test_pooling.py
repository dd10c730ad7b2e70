"""Average pooling against torch's own, on the features of the unmodified model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

import prunus
from prunus import EvoPrune, Fixed
from prunus.grid import Grid
from prunus.pruners.pooling import Pooling
from tests.support.entering import entering, view_by_hand
from tests.support.models import Case, case_of
from tests.support.runs import gap, plain
from tests.support.towers import deep, prompt


@torch.no_grad()
def tower_features(model: Any, pixels: Tensor) -> Tensor:
    """``[images, N, D]`` that the projector of the unmodified LLaVA reads."""
    states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
    return states[:, model.config.vision_config.model_type == "clip_vision_model" :]


@pytest.mark.parametrize("space", ["model", "tower"])
@pytest.mark.parametrize(("keep", "shape"), [(9, (3, 3)), (12, (3, 4)), (4, (2, 2)), (1, (1, 1))])
def test_equals_adaptive_pooling(space: Any, keep: int, shape: tuple[int, int]) -> None:
    case, inputs = deep(), prompt(2)
    run, states = entering(case, Pooling(keep=keep, space=space), inputs)
    features = tower_features(case.model, inputs["pixel_values"])
    project, start = case.model.model.multi_modal_projector, 2
    for image, own in enumerate(features):
        with torch.no_grad():
            rows = own if space == "tower" else project(own[None])[0]
            sheet = rows.T.reshape(1, -1, 6, 6)
            pooled = adaptive_avg_pool2d(sheet, shape).flatten(2)[0].T
            wanted = project(pooled[None])[0] if space == "tower" else pooled
        assert gap(states[0, start : start + keep], wanted) < 1e-5
        corners = [
            y * 6 // shape[0] * 6 + x * 6 // shape[1]
            for y in range(shape[0])
            for x in range(shape[1])
        ]
        assert run.trace[0].kept[0][image].tolist() == corners
        start += keep


def test_the_two_spaces_differ() -> None:
    case, inputs = deep(), prompt(1)
    model, tower = (
        entering(case, Pooling(keep=9, space=space), inputs)[1] for space in ("model", "tower")
    )
    assert gap(model, tower) > 1e-3


@pytest.mark.parametrize(
    "grid",
    [Grid(1, 5, 5, (8, 8)), Grid(1, 2, 9, (8, 8)), Grid(1, 1, 11, (8, 8)), Grid(3, 2, 4, (8, 8))],
)
def test_every_count_and_every_mean(grid: Grid) -> None:
    values = torch.randn(grid.size, 3)
    for count in range(1, grid.size + 1):
        answer = Pooling(keep=count).select(0, view_by_hand(count, grid, values))
        assert answer.mix is not None
        kept, mix = answer.kept[0], answer.mix[0]
        assert len(kept) == count and torch.equal(kept, kept.unique())
        assert torch.allclose(mix.sum(1), torch.ones(count)) and (mix.sum(0) > 0).all()
        weights = [set(row[row > 0].mul(1e6).round().tolist()) for row in mix]
        assert all(len(own) == 1 for own in weights)  # plain means
        assert (mix.gather(1, kept[:, None]) > 0).all()  # each has its own place in itself
        if count >= grid.frames:  # no token of two frames
            each = grid.size // grid.frames
            assert all(len({int(n) // each for n in row.nonzero()}) == 1 for row in mix)


def test_videos_are_pooled_frame_by_frame() -> None:
    case = case_of("qwen2.5-vl-video")
    inputs = case.prompts.rows(1)  # one video of two frames, three by three each
    run, states = entering(case, Pooling(keep=8), inputs)
    (places,) = case.prompts.spots(inputs["input_ids"])[0]
    _, dense = entering(case, Pooling(keep=1.0), inputs)
    own = dense[0, places].reshape(2, 9, -1)
    wanted = [
        adaptive_avg_pool2d(frame.T.reshape(1, -1, 3, 3), (2, 2)).flatten(2)[0].T for frame in own
    ]
    assert gap(states[0, places[0] : places[0] + 8], torch.cat(wanted)) < 1e-5
    assert run.trace[0].kept[0][0].tolist() == [0, 1, 3, 4, 9, 10, 12, 13]


def test_a_replay_is_exact(case: Case) -> None:
    inputs = case.prompts.rows(2, 0, 1)
    for method in (Pooling(keep=5), Pooling(keep=7, space="tower"), Pooling(keep=0.9)):
        with prunus.prune(case.model, method) as run:
            expected = plain(case.model, inputs)
        with prunus.prune(case.model, Fixed.replay(run.trace)) as again:
            assert torch.equal(plain(case.model, inputs), expected)
        assert again.trace[0].merged_into[0][0].equal(run.trace[0].merged_into[0][0])


def test_what_it_needs(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    with torch.no_grad():
        outside = llava.model.model.get_image_features(inputs["pixel_values"])
        ids = {"input_ids": inputs["input_ids"]}
        with prunus.prune(llava.model, Pooling(keep=4)):  # of projected features: enough
            found = llava.model(**ids, mm_encoder_outputs={"image": outside}).logits
            assert torch.equal(found, llava.model(**inputs).logits)
        with prunus.prune(llava.model, Pooling(keep=4, space="tower")):
            with pytest.raises(ValueError, match="reads the vision tower.*pass pixel values"):
                llava.model(**ids, mm_encoder_outputs={"image": outside})
    with pytest.raises(ValueError, match="needs the whole grid and makes its own selection"):
        prunus.prune(llava.model, [EvoPrune(keep=8), Pooling(keep=4)])
    with pytest.raises(ValueError, match="space"):
        Pooling(space="pixels")  # type: ignore[arg-type]
