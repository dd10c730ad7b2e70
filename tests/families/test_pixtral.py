"""Mistral 3, and LLaVA with a Pixtral tower, loaded from disk with their real processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, EvoPrune, Uniform
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.grid import Grid
from prunus.pruners.tome import ToMe
from prunus.pruners.visionzip import VisionZip
from prunus.viz.as_seen import pictures_as_seen
from prunus.viz.seen import seen_images
from tests.conftest import Case
from tests.support.entering import entering
from tests.support.facts import counts
from tests.support.families import encoded
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.pixtral import LLAVA_PIXTRAL, MISTRAL3
from tests.support.literal.evoprune import literal
from tests.support.literal.tome import tome
from tests.support.literal.visionzip import zipped
from tests.support.oracles.merged_pixtral import merged_image, projected
from tests.support.runs import gap, plain

KINDS = {"mistral3": MISTRAL3, "llava": LLAVA_PIXTRAL}
ORDINARY = {"mistral3": "released", "llava": "before"}
EVERY = [
    pytest.param(name, kind, method, marks=[] if method == ORDINARY[kind] else [pytest.mark.full])
    for kind in KINDS
    for method in METHODS
    for name in INVARIANTS
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    return {name: load(kind, tmp_path_factory.mktemp(name)) for name, kind in KINDS.items()}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(kind: str, loaded: dict[str, tuple[Any, Any]]) -> Case:
    return case_of(KINDS[kind], loaded[kind], "I")


@pytest.mark.parametrize(("name", "kind", "method"), EVERY)
def test_invariants(name: str, kind: str, method: str, loaded: dict[str, tuple[Any, Any]]) -> None:
    hold(name, case_of(KINDS[kind], loaded[kind], "I"), METHODS[method])


@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_merging_in_the_tower(name: str, case: Case, kind: str) -> None:
    hold(name, case, EvoPrune(keep=0.5, proportional=kind == "llava"))


def each_image(inputs: dict[str, Tensor]) -> list[Tensor]:
    """``[3, h, w]`` without padding."""
    sizes = inputs["image_sizes"].tolist()
    return [p[:, :h, :w] for p, (h, w) in zip(inputs["pixel_values"], sizes, strict=True)]


@pytest.mark.parametrize(
    "method",
    [
        EvoPrune(keep=0.4),
        EvoPrune(keep=0.4, proportional=True),
        EvoPrune(keep=7, metric="hidden", start=0, by_size=False, schedule="mean"),
        EvoPrune(keep=9, protect=1.0, start=0, schedule="mean"),
        EvoPrune(keep=4, schedule="mean", start=0),
    ],
)
def test_merges_what_the_literal_reading_merges(case: Case, method: EvoPrune) -> None:
    inputs = case.prompts.rows(2, 1)
    with prunus.prune(case.model, method) as run, torch.no_grad():
        case.model(**inputs)
        image = inputs["pixel_values"], inputs["image_sizes"]
        handed = case.model.model.get_image_features(image[0], image_sizes=image[1]).pooler_output
    (entry,) = run.trace
    kept = [own.tolist() for row in entry.kept for own in row]
    into = [own.tolist() for row in entry.merged_into for own in row]
    for number, pixels in enumerate(each_image(inputs)):
        size = len(into[number])
        gone = list(method.merges(4, size, counts(method, size)[0]))
        with torch.no_grad():
            tokens, history = merged_image(
                case.model, pixels, literal(method, gone), method.by_size, method.proportional
            )
            assert kept[number] == sorted(tokens)
            assert {index: into[number].count(index) for index in tokens} == history[-1]
            for index in range(size):
                wanted = torch.zeros(64)
                if index in tokens:
                    wanted = projected(case.model, tokens[index])
                assert gap(handed[number][index], wanted) < 1e-4


def test_tome(case: Case) -> None:
    """Attention counts how much a token stands for, as ToMe has it."""
    inputs = case.prompts.rows(2)
    with prunus.prune(case.model, ToMe(keep=8)) as run, torch.no_grad():
        case.model(**inputs)
    (entry,) = run.trace
    assert entry.proportional
    for number, pixels in enumerate(each_image(inputs)):
        size = entry.grid[0][number].size
        gone = list(ToMe(keep=8, cls=False).merges(4, size, 8))
        with torch.no_grad():
            tokens, _ = merged_image(case.model, pixels, tome(gone, False), proportional=True)
        assert entry.kept[0][number].tolist() == sorted(tokens)


def test_visionzip_by_attention_received_and_rotated_keys(case: Case) -> None:
    inputs = case.prompts.rows(2)
    run, states = entering(case, VisionZip(keep=7, contextual=3, order="published"), inputs)
    spots = case.prompts.spots(inputs["input_ids"])[0]
    gone = 0
    for number, pixels in enumerate(each_image(inputs)):
        seen: list[Any] = []
        with torch.no_grad():
            tokens, _ = merged_image(case.model, pixels, seen.append)
            features = [projected(case.model, tokens[n]) for n in range(len(tokens))]
        look = seen[-1]
        names, own = zipped(features, look.received.tolist(), list(look.turned), 7, 3, None)
        assert run.trace[0].kept[0][number].tolist() == sorted(token for _, token in names)
        begin = spots[number][0] - gone
        found = [states[0, place] for place in places_left(run, spots, number, begin)]
        assert gap(torch.stack(found), torch.stack(own)) < 1e-4
        gone += len(spots[number]) - 7


def places_left(run: Any, spots: list[list[int]], number: int, begin: int) -> list[int]:
    """Where the tokens that are left of an image are in a row whose first image token has moved to
    ``begin``: those kept, with the [IMG_BREAK]s that stay between them."""
    first, kept = spots[number][0], run.trace[0].kept[0][number].tolist()
    visual = set(spots[number])
    found = []
    for token in kept:
        place = spots[number][token]
        breaks = sum(1 for spot in range(first, place) if spot not in visual)
        found.append(begin + kept.index(token) + breaks)
    return found


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(square: Square, kind: str, case: Case) -> None:
    inputs = marked_inputs(KINDS[kind], case.prompts.processor, (90, 43), square)
    (grid,) = family_of(case.model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"][0]
    low, high = (f(pixels, dim=(1, 2), keepdim=True) for f in (torch.amin, torch.amax))
    bright = (pixels > low + 0.3 * (high - low)).any(0)
    cells = bright.unfold(0, 8, 8).unfold(1, 8, 8).flatten(2).any(2)
    assert cells.shape == (grid.rows, grid.cols)
    assert_mark_in_boxes(boxes_of(grid, (90, 43)), cells.flatten().numpy(), square)


def test_breaks_between_rows_are_text_that_stays(kind: str, case: Case) -> None:
    inputs = encoded(KINDS[kind], case.prompts.processor, "what I is this?")
    ids = inputs["input_ids"][0]
    with prunus.prune(case.model, Uniform(keep=6, layer=None)) as run, torch.no_grad():
        cache = case.model(**inputs, use_cache=True).past_key_values
    grid = Grid(1, 4, 9, (8, 8))
    token = case.model.config.image_token_id
    assert run.trace[0].grid == [[grid]]
    assert [int((ids == token + n).sum()) for n in range(3)] == [grid.size, grid.rows - 1, 1]
    assert cache.layers[0].keys.shape[2] == len(ids) - grid.size + 6


@pytest.mark.parametrize("method", [CLSE(keep=5), EvoPrune(keep=0.5, protect=0.0)])
def test_costs(method: Any, kind: str, case: Case) -> None:
    inputs = encoded(KINDS[kind], case.prompts.processor, "what I is this?")
    del inputs["attention_mask"]
    report = assert_costs(case.model, inputs, method)
    assert report["uncounted"] == {}
    assert (report["flops"]["encoder_ratio"] < 1) == isinstance(method, EvoPrune)


def test_features_computed_beforehand_need_the_sizes(case: Case) -> None:
    inputs = case.prompts.rows(2)
    with prunus.prune(case.model, CLSE(keep=5)), torch.no_grad():
        expected = plain(case.model, inputs)
        pixels = inputs.pop("pixel_values")
        features = case.model.model.get_image_features(pixels, image_sizes=inputs["image_sizes"])
        found = case.model(**inputs, mm_encoder_outputs={"image": features}).logits
        assert gap(found, expected) < 1e-6
        del inputs["image_sizes"]
        with pytest.raises(PrunusError, match="grid as the processor gave it"):
            case.model(**inputs, mm_encoder_outputs={"image": features})


def test_images_without_sizes_fill_their_tensor(loaded: dict[str, tuple[Any, Any]]) -> None:
    """LLaVA takes them so; Mistral 3 does not."""
    model, processor = loaded["llava"]
    inputs = encoded(LLAVA_PIXTRAL, processor, "what I is this?")
    with prunus.prune(model, EvoPrune(keep=20)) as run, torch.no_grad():
        expected = plain(model, inputs)
        del inputs["image_sizes"]
        assert torch.equal(plain(model, inputs), expected)
    assert run.trace[0].grid == [[Grid(1, 4, 9, (8, 8))]]


def test_patches_that_make_no_token_stay_in_the_tower(loaded: dict[str, tuple[Any, Any]]) -> None:
    """An image of an odd number of patches, as no processor gives it: the patch merger leaves the
    last row and column out, and they are no tokens."""
    model, processor = loaded["mistral3"]
    inputs = encoded(MISTRAL3, processor, "what I is this?")
    inputs["pixel_values"] = torch.nn.functional.pad(
        inputs["pixel_values"], (0, 4, 0, 4), value=0.5
    )
    inputs["image_sizes"] = inputs["image_sizes"] + 4
    dense = plain(model, inputs)
    with prunus.prune(model, EvoPrune(keep=1.0)):
        assert torch.equal(plain(model, inputs), dense)
    with prunus.prune(model, EvoPrune(keep=20)) as run:
        assert gap(plain(model, inputs), dense) > 1e-3
    assert run.trace[0].grid == [[Grid(1, 4, 9, (8, 8))]] and len(run.trace[0].kept[0][0]) == 20


def test_what_is_refused() -> None:
    model, processor = LLAVA_PIXTRAL.build()
    inputs = encoded(LLAVA_PIXTRAL, processor, "what I is this?")
    inputs["image_sizes"] = inputs["image_sizes"][0]
    with prunus.prune(model, Uniform(keep=5)):
        with pytest.raises(PrunusError, match="image_sizes has shape"):
            model.generate(**inputs, max_new_tokens=1)
    model.config.vision_feature_layer = [-2, -1]
    with pytest.raises(PrunusError, match="features of several blocks"):
        prunus.prune(model, EvoPrune(keep=5)).attach()
    model.config.vision_feature_select_strategy = "default"
    with pytest.raises(PrunusError, match="'default' takes the first patch"):
        prunus.prune(model, Uniform(keep=5))
    other, _ = LLAVA_PIXTRAL.build()
    other.config.vision_config.model_type = "vit"
    with pytest.raises(PrunusError, match="clip_vision_model, siglip_vision_model or pixtral"):
        prunus.prune(other, Uniform(keep=5))


def test_pictures_are_shown_without_the_padding_of_the_batch(case: Case) -> None:
    processor = case.prompts.processor
    inputs = case.prompts.rows(3)
    grids = family_of(case.model).grids_of(inputs)["image"]
    assert len({(grid.rows, grid.cols) for grid in grids}) == 3
    seen = pictures_as_seen(processor, inputs, [], grids)
    sizes = inputs["image_sizes"].tolist()
    for pixels, ((picture,), (height, width)) in zip(
        inputs["pixel_values"], zip(seen, sizes, strict=True), strict=True
    ):
        assert picture.shape == (height, width, 3)
        (alone,) = seen_images(pixels[None, :, :height, :width], processor.image_processor)
        assert (picture == alone).all()
