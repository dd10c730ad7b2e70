"""LLaVA-OneVision, loaded from disk with its real processor."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, Uniform
from prunus.errors import PrunusError
from prunus.families import family_of
from tests.conftest import Case
from tests.support.families import clip, encoded, marked, picture
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.llava_onevision import (
    ACROSS,
    FRAMES,
    LLAVA_ONEVISION,
    PATCH,
    POOLED,
    TILE,
    packed,
)
from tests.support.llava import DEPTH
from tests.support.oracles.masked import visibility
from tests.support.runs import gap, masked_logits, plain


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(LLAVA_ONEVISION, tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["I", "VI"])
def case(request: pytest.FixtureRequest, loaded: tuple[Any, Any]) -> Case:
    return case_of(LLAVA_ONEVISION, loaded, request.param)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, case: Case) -> None:
    hold(name, case, METHODS[method])


SIZES_SEEN = [
    (88, 40),
    (48, 32),
    (40, 72),
    (33, 97),
    (97, 33),
    (26, 26),
    (120, 31),
    (7, 5),
    (90, 88),
]


@pytest.mark.parametrize("size", SIZES_SEEN)
def test_cells_are_where_the_model_packs_them(
    size: tuple[int, int], loaded: tuple[Any, Any]
) -> None:
    model, processor = loaded
    width, height = size
    inputs = processor(images=picture(width, height), text="a<image>b", return_tensors="pt")
    family = family_of(model)
    (grid,) = family.grids_of(inputs)["image"]
    cells = family.cells(grid)
    assert (cells < 0).tolist() == [number < 0 for number in packed(model, (height, width))]
    assert len(cells) == int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert cells[cells >= 0].tolist() == list(range(grid.size))
    assert len(family.tower_grids(grid)) == inputs["pixel_values"].shape[1]


def _bright(pixels: torch.Tensor, share: float = 0.4) -> torch.Tensor:
    """Float ``[tiles, N]``: 1 for patches of ``[tiles, 3, H, W]`` that have a bright pixel."""
    pixels = pixels[:, :1, : ACROSS * PATCH, : ACROSS * PATCH]
    low, high = (f(pixels, dim=(0, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    bright = pixels > low + share * (high - low)
    tiles = bright[:, 0].unflatten(1, (ACROSS, PATCH)).unflatten(3, (ACROSS, PATCH))
    return tiles.any(4).any(2).flatten(1).float()


@pytest.mark.parametrize("square", [(0, 0, 14), (30, 10, 16), (56, 22, 15)])
@pytest.mark.parametrize("size", [(80, 40), (77, 60)])
def test_a_mark_lies_in_the_boxes_of_its_cells(
    size: tuple[int, int], square: Square, loaded: tuple[Any, Any]
) -> None:
    """Tiles of 8 x 10 cells or more become fewer: those that see the mark blend into theirs."""
    model, processor = loaded
    inputs = marked_inputs(LLAVA_ONEVISION, processor, size, square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    overview = grid.parts[0]
    values = packed(model, size[::-1], _bright(inputs["pixel_values"][0]))
    seen = torch.tensor([value for value in values if value >= 0])
    boxes = boxes_of(grid, size)
    assert boxes[: overview.size].min() == 0
    covered = ACROSS * PATCH / TILE
    assert boxes[: overview.size].max(0)[2:] == pytest.approx([covered * side for side in size])
    assert_mark_in_boxes(boxes[: overview.size], seen[: overview.size].numpy() > 0.5, square)
    # A cell that is resized from several is bright in part.
    left, top, side = square
    for box, value in zip(boxes[overview.size :], seen[overview.size :], strict=True):
        a, b, c, d = box
        slack = max(c - a, d - b) / 2 + 2
        near = a < left + side + slack and c > left - slack
        near = near and b < top + side + slack and d > top - slack
        inside = a > left + slack and c < left + side - slack
        inside = inside and b > top + slack and d < top + side - slack
        assert not (value > 0 and not near) and not (value == 0 and inside)
    assert (seen[overview.size :] > 0).any()


@pytest.mark.parametrize("signs", ["II", "IIV"])
def test_several_images_of_a_sample_have_one_tile_each(signs: str, loaded: tuple[Any, Any]) -> None:
    """Told by nested images, as chat templates give them."""
    model, processor = loaded
    images = [marked(60, 40, 30, 10, 20), picture(20, 70, 1), picture(33, 33, 2)]
    text = "a<image>b<image>c" + "<video>d" * signs.count("V")
    given: dict[str, Any] = {"images": [images[:2], images[2:]], "text": [text, "so <image>?"]}
    if "V" in signs:
        given |= {"videos": [clip(FRAMES, 48, 32)], "do_sample_frames": False}
    inputs = dict(processor(**given, padding=True, return_tensors="pt"))
    assert inputs["batch_num_images"].tolist() == [2, 1]
    family = family_of(model)
    wide, tall, alone = family.grids_of(inputs)["image"]
    covered = ACROSS * PATCH / TILE
    assert wide.area == pytest.approx((0, -10, 60 * covered, 60 * covered))
    assert tall.area == pytest.approx((-25, 0, 70 * covered, 70 * covered))
    assert family.cells(wide).tolist() == [*range(ACROSS**2), -1]
    assert len(alone.parts) == 2
    (bright,) = _bright(inputs["pixel_values"][0, :1], 0.65)  # padding is grey
    assert_mark_in_boxes(boxes_of(wide, (60, 40)), bright.bool().numpy(), (30, 10, 20))
    # The oracle's positions: runs of placeholders, of which the last is a newline.
    spots = []
    for row, ids in enumerate(inputs["input_ids"].tolist()):
        tokens = (model.config.image_token_id, model.config.video_token_id)
        runs = [list(run) for key, run in groupby(enumerate(ids), lambda i: i[1]) if key in tokens]
        spots.append([[place for place, _ in run] for run in runs])
        if row == 0:
            spots[0] = [run[:-1] for run in spots[0]]
        else:
            keep = [number >= 0 for number in packed(model, (33, 33))]
            spots[1] = [[place for place, own in zip(spots[1][0], keep, strict=True) if own]]
    with prunus.prune(model, Uniform(keep=7, layer=1)) as run:
        logits = plain(model, inputs)
    length = inputs["input_ids"].shape[1]
    visible = visibility(run.trace, spots, inputs["attention_mask"], DEPTH, length)
    expected = masked_logits(model, inputs, visible, run.trace)
    assert gap(logits[:, -1], expected[:, -1]) < 1e-4
    assert gap(logits[:, -1], plain(model, inputs)[:, -1]) > 1e-3
    del inputs["attention_mask"]  # rows of different length, without their padding
    one = {name: value[:1] for name, value in inputs.items() if name.startswith("input_ids")}
    one |= {name: inputs[name][:2] for name in ("pixel_values", "image_sizes")}
    one |= {n: inputs[n] for n in ("pixel_values_videos",) if n in inputs}
    one["batch_num_images"] = inputs["batch_num_images"][:1]
    assert_costs(model, one, Uniform(keep=7))


def test_a_video_is_halved_and_ends_in_one_newline(loaded: tuple[Any, Any]) -> None:
    """The unmodified model pools features that are numbers of their frame."""
    model, processor = loaded
    inputs = encoded(LLAVA_ONEVISION, processor, "a V?")
    family, core = family_of(model), model.model
    (grid,) = family.grids_of(inputs)["video"]
    assert (grid.frames, grid.rows, grid.cols) == (FRAMES, POOLED, POOLED)
    numbers = torch.zeros(FRAMES, ACROSS, ACROSS, 64)
    numbers[..., 0] = torch.arange(FRAMES)[:, None, None]
    numbers[..., 1] = torch.arange(ACROSS)[:, None]
    numbers[..., 2] = torch.arange(ACROSS)
    numbers = numbers.flatten(1, 2)
    hook = core.multi_modal_projector.register_forward_hook(lambda *_: numbers)
    (given,) = core.get_video_features(inputs["pixel_values_videos"]).pooler_output
    hook.remove()
    cells = family.cells(grid)
    assert len(given) == len(cells) and cells.tolist() == [*range(grid.size), -1]
    for number, middle in enumerate(given[:-1].tolist()):
        frame, left, top, right, bottom = grid.box(number)
        at, row, col = middle[:3]
        assert frame == at
        assert (row + 0.5) * PATCH == pytest.approx((top + bottom) / 2, abs=1)
        assert (col + 0.5) * PATCH == pytest.approx((left + right) / 2, abs=1)
    with prunus.prune(model, Uniform(keep=5, layer=None)), torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    assert cache.layers[0].keys.shape[2] == inputs["input_ids"].shape[1] - grid.size + 5


@pytest.mark.parametrize("signs", ["I", "V", "VI"])
def test_costs(signs: str, loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    inputs = case_of(LLAVA_ONEVISION, loaded, signs).prompts.rows(2 if signs != "V" else 1)
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, CLSE(keep=5))
    assert report["uncounted"] == {}


def test_features_from_outside(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(LLAVA_ONEVISION, processor, "a I?")
    with prunus.prune(model, Uniform(keep=5)) as run, torch.no_grad():
        expected = model(**inputs).logits
        sizes = inputs["image_sizes"]
        features = {"image": model.model.get_image_features(inputs.pop("pixel_values"), sizes)}
        logits = model(**inputs, mm_encoder_outputs=features).logits
        assert run.report()["pruned"]
        with pytest.raises(PrunusError, match="does not say how large"):
            model(**{**inputs, "image_sizes": None}, mm_encoder_outputs=features)
    torch.testing.assert_close(logits, expected)


def test_what_is_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(LLAVA_ONEVISION, processor, "what I is this?")
    videos = encoded(LLAVA_ONEVISION, processor, "what V is this?")
    with prunus.prune(model, Uniform(keep=5)):
        with pytest.raises(PrunusError, match="image_sizes has shape"):
            model.generate(**{**inputs, "image_sizes": inputs["image_sizes"][0]})
        with pytest.raises(PrunusError, match="batch_num_images names .2. images"):
            model.generate(**{**inputs, "batch_num_images": torch.tensor([2])})
        with pytest.raises(PrunusError, match="vision_aspect_ratio='anyres_max_9' in a call"):
            model.generate(**inputs, vision_aspect_ratio="anyres_max_9")
        with pytest.raises(PrunusError, match="give .videos, frames"):
            model.generate(**{**videos, "pixel_values_videos": videos["pixel_values_videos"][0]})
    other, _ = LLAVA_ONEVISION.build()
    other.config.vision_feature_select_strategy = "default"
    with pytest.raises(PrunusError, match="llava-onevision with.*siglip_vision_model.*'default'"):
        prunus.prune(other, Uniform(keep=5))
