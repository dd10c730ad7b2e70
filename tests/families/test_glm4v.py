"""GLM-4.1V, GLM-4.5V and GLM-4.6V, loaded from disk with their real processors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, EvoPrune, Random, Uniform
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.grid import Grid
from tests.conftest import Case
from tests.support.facts import counts
from tests.support.families import Kind, encoded
from tests.support.family_checks import (
    Square,
    assert_costs,
    assert_mark_in_boxes,
    boxes_of,
    marked_inputs,
)
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load
from tests.support.kinds.glm4v import GLM4V, GLM4V_MOE, GLM46V
from tests.support.literal.evoprune import literal
from tests.support.oracles.merged_windows import frames_of, merged_frame
from tests.support.real_prompts import RealPrompts
from tests.support.runs import gap, plain

KINDS = {kind.name: kind for kind in (GLM4V, GLM46V, GLM4V_MOE)}
BEAMS = "beams_score_as_the_oracle_does"
ORDINARY = {("glm-4v", "I", "before"), ("glm-4v", "V", "released"), ("glm-4v-moe", "I", "released")}
EVERY = [
    pytest.param(
        *case, name, marks=[] if case in ORDINARY or "4.6" in case[0] else [pytest.mark.full]
    )
    for case in [
        *(
            (kind, sign, method)
            for kind in ("glm-4v", "glm-4v-moe")
            for sign in "IV"
            for method in METHODS
        ),
        ("glm-4.6v", "V", "late"),
    ]
    for name in INVARIANTS
    if not (name == BEAMS and case[1] == "V")  # they fail in the unmodified model
]


class OneEach(RealPrompts):
    """A row has one image at most."""

    def rows(self, *images: int, text: int = 6, seed: int = 1) -> dict[str, Tensor]:
        return super().rows(*(min(count, 1) for count in images), text=text, seed=seed)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    return {name: load(kind, tmp_path_factory.mktemp(name)) for name, kind in KINDS.items()}


def ready(loaded: dict[str, tuple[Any, Any]], kind: str, signs: str, name: str = "") -> Case:
    """The case for an invariant of this ``name``."""
    case = case_of(KINDS[kind], loaded[kind], signs)
    if name == BEAMS:
        case.prompts = OneEach(KINDS[kind], *loaded[kind], signs)  # type: ignore[assignment]
    return case


@pytest.mark.parametrize(("kind", "signs", "method", "name"), EVERY)
def test_invariants(
    kind: str, signs: str, method: str, name: str, loaded: dict[str, tuple[Any, Any]]
) -> None:
    hold(name, ready(loaded, kind, signs, name), METHODS[method])


@pytest.mark.parametrize("signs", ["I", "V"])
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants_of_merging_in_the_tower(
    name: str, signs: str, loaded: dict[str, tuple[Any, Any]]
) -> None:
    if name == BEAMS and signs == "V":
        pytest.skip("beams over videos fail in the unmodified model")
    hold(name, ready(loaded, "glm-4v", signs, name), EvoPrune(keep=0.5))


@pytest.mark.parametrize("signs", ["I", "V"])
@pytest.mark.parametrize(
    "method", [EvoPrune(keep=0.4), EvoPrune(keep=4, protect=0.5, schedule="mean", start=0)]
)
def test_merges_what_the_literal_reading_merges(
    method: EvoPrune, signs: str, loaded: dict[str, tuple[Any, Any]]
) -> None:
    """Frame by frame, the last block included."""
    model, _ = loaded["glm-4v"]
    inputs = ready(loaded, "glm-4v", signs).prompts.rows(1, 1)
    kind = {"I": "image", "V": "video"}[signs]
    pixels = inputs["pixel_values" if signs == "I" else "pixel_values_videos"]
    with prunus.prune(model, method) as run, torch.no_grad():
        model(**inputs)
        read = model.model.get_image_features if signs == "I" else model.model.get_video_features
        handed = read(pixels, inputs[f"{kind}_grid_thw"]).pooler_output
    (entry,) = run.trace
    kept = [own.tolist() for row in entry.kept for own in row]
    firsts: dict[int, int] = {}
    for _, number, grid, own in frames_of(inputs, 2):
        first = firsts.get(number, 0)
        firsts[number] = first + grid.size
        gone = list(method.merges(4, grid.size, counts(method, grid.size)[0]))
        with torch.no_grad():
            tokens, _ = merged_frame(
                model.model.visual, own, grid, literal(method, gone), method.by_size
            )
        assert [n - first for n in kept[number] if 0 <= n - first < grid.size] == sorted(tokens)
        for index in range(grid.size):
            wanted = tokens.get(index, torch.zeros(64))
            assert gap(handed[number][first + index], wanted) < 1e-4


@pytest.mark.parametrize("square", [(0, 0, 12), (30, 10, 15), (70, 25, 15)])
def test_a_mark_lies_in_the_boxes_of_its_cells(
    square: Square, loaded: dict[str, tuple[Any, Any]]
) -> None:
    """The processor puts the four patches of a cell behind each other."""
    model, processor = loaded["glm-4v"]
    inputs = marked_inputs(GLM4V, processor, (90, 43), square)
    (grid,) = family_of(model).grids_of(inputs)["image"]
    pixels = inputs["pixel_values"].view(grid.size, 4, 3, -1)
    low, high = (f(pixels, dim=(0, 1, 3), keepdim=True) for f in (torch.amin, torch.amax))
    bright = (pixels > low + 0.3 * (high - low)).flatten(1).any(1)
    assert_mark_in_boxes(boxes_of(grid, (90, 43)), bright.numpy(), square)


@pytest.mark.parametrize("method", [CLSE(keep=5), EvoPrune(keep=0.5, protect=0.0)])
@pytest.mark.parametrize(("kind", "signs"), [("glm-4v", "I"), ("glm-4v", "V"), ("glm-4v-moe", "I")])
def test_costs(kind: str, signs: str, method: Any, loaded: dict[str, tuple[Any, Any]]) -> None:
    model, _ = loaded[kind]
    inputs = ready(loaded, kind, signs).prompts.rows(1)
    del inputs["attention_mask"]
    if kind == "glm-4v-moe":
        model.set_experts_implementation("eager")  # products that torch's counter knows
    report = assert_costs(model, inputs, method)
    assert report["uncounted"] == {}
    assert (report["flops"]["encoder_ratio"] < 1) == isinstance(method, EvoPrune)


def shown(kind: Kind, loaded: dict[str, tuple[Any, Any]], text: str) -> dict[str, Tensor]:
    return encoded(kind, loaded[kind.name][1], text)


@pytest.mark.parametrize("kind", [GLM4V, GLM46V], ids=lambda kind: str(kind.name))
def test_a_video_is_one_grid_with_timestamps_between(
    kind: Kind, loaded: dict[str, tuple[Any, Any]]
) -> None:
    model, _ = loaded[kind.name]
    inputs = shown(kind, loaded, "what V is this?")
    ids = inputs["input_ids"][0]
    assert not (ids == model.config.video_token_id).any()  # it fills those of images
    count = int((ids == model.config.image_token_id).sum())
    with prunus.prune(model, Random(keep=9, layer=None)) as run, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    assert run.trace[0].grid == [[Grid(2, 3, 4, (8, 8))]] and run.trace[0].kind == [["video"]]
    assert count == 24 and cache.layers[0].keys.shape[2] == len(ids) - 24 + 9


def test_kinds_are_told_apart_without_ids(loaded: dict[str, tuple[Any, Any]]) -> None:
    model, _ = loaded["glm-4v"]
    family = family_of(model)
    for text, kind, other in (("an I b", "image", "video"), ("a V b", "video", "image")):
        ids = shown(GLM4V, loaded, text)["input_ids"]
        embeds = model.get_input_embeddings()(ids)
        for found in (family.placeholders(ids, None), family.placeholders(None, embeds)):
            assert torch.equal(found[kind], ids == model.config.image_token_id)
            assert not found[other].any()


def test_what_the_unmodified_model_cannot_do(loaded: dict[str, tuple[Any, Any]]) -> None:
    model, _ = loaded["glm-4v"]
    two, video = shown(GLM4V, loaded, "a I b I c"), shown(GLM4V, loaded, "a V b")
    mixed = shown(GLM4V, loaded, "a I b V c")
    options = {"max_new_tokens": 2, "num_beams": 2}
    with pytest.raises(ValueError, match="do not match"):
        plain(model, mixed)
    with pytest.raises(ValueError, match="non-empty list"):
        model.generate(**video, **options)
    with prunus.prune(model, Uniform(keep=5)):
        with pytest.raises(ValueError, match="do not match"):
            plain(model, mixed)
        with pytest.raises(ValueError, match="non-empty list"):
            model.generate(**video, **options)
        with pytest.raises(PrunusError, match="2 images, and generate.* mixes them up"):
            model.generate(**two, **options)
        model.generate(**two, max_new_tokens=2)


def test_features_computed_beforehand_need_their_grid(loaded: dict[str, tuple[Any, Any]]) -> None:
    model, _ = loaded["glm-4v"]
    for text, kind, name in (
        ("a I b I c", "image", "pixel_values"),
        ("a V b", "video", "pixel_values_videos"),
    ):
        inputs = shown(GLM4V, loaded, text)
        with prunus.prune(model, CLSE(keep=5)), torch.no_grad():
            expected = plain(model, inputs)
            read = getattr(model.model, f"get_{kind}_features")
            features = read(inputs.pop(name), inputs[f"{kind}_grid_thw"])
            found = model(**inputs, mm_encoder_outputs={kind: features}).logits
            assert gap(found, expected) < 1e-6
            del inputs[f"{kind}_grid_thw"]
            with pytest.raises(PrunusError, match="grid as the processor gave it"):
                model(**inputs, mm_encoder_outputs={kind: features})
