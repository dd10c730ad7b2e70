"""Towers whose tokens must not merge, but can be looked at: each family against its own maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import EvoPrune
from prunus.cli.models import runs
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.families.llama4 import Llama4
from prunus.inference.named import Named
from prunus.pruners.fastervlm import FasterVLM
from prunus.pruners.tome import ToMe
from tests.support.families import LLAVA_NEXT, SMALL, WIDE, Kind, encoded, picture
from tests.support.family_invariants import case_of, hold, load
from tests.support.kinds.cohere2_vision import AYA_VISION, COHERE2_VISION
from tests.support.kinds.gemma3 import GEMMA3
from tests.support.kinds.llava_next_video import LLAVA_NEXT_VIDEO
from tests.support.kinds.llava_onevision import LLAVA_ONEVISION, packed
from tests.support.kinds.paligemma import PALIGEMMA
from tests.support.kinds.vip_llava import VIP_LLAVA
from tests.support.literal.tower import best_of_each, looked
from tests.support.real_prompts import packed_numbers

KEEP = 7
Packed = Callable[[Any, tuple[int, int]], list[float]]
#: By kind: the map of which of the tower's outputs, patches along the side of a token, and, of
#: images with padding, how the model packs tokens that are numbers (newlines are -1).
FACTS: dict[str, tuple[Kind, int, int, Packed | None]] = {
    "llava-next": (LLAVA_NEXT, -2, 1, packed_numbers),
    "llava-next-video": (LLAVA_NEXT_VIDEO, -2, 1, packed_numbers),
    "llava-onevision": (LLAVA_ONEVISION, -1, 1, packed),
    "vip-llava": (VIP_LLAVA, -2, 1, None),
    "paligemma": (PALIGEMMA, -1, 1, None),
    "gemma3": (GEMMA3, -1, 2, None),
    "aya-vision": (AYA_VISION, -1, 2, None),
    "cohere2-vision": (COHERE2_VISION, -1, 2, None),
}


@pytest.fixture(params=FACTS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Any]]:
    made: dict[str, tuple[Any, Any]] = {}

    def one(name: str) -> tuple[Any, Any]:
        if name not in made:
            made[name] = load(FACTS[name][0], tmp_path_factory.mktemp("model"))
        return made[name]

    return one


def by_token(patches: list[float], side: int) -> list[float]:
    """Of each token of a tile the mean of its square of patches."""
    across = int(len(patches) ** 0.5)
    found = []
    for row in range(0, across, side):
        for col in range(0, across, side):
            own = [
                patches[(row + down) * across + col + along]
                for down in range(side)
                for along in range(side)
            ]
            found.append(sum(own) / len(own))
    return found


def wanted(
    name: str, model: Any, pixels: Tensor, size: tuple[int, int], pieces: int, start: int
) -> list[int]:
    """Tokens of one image, whose tiles come ``start`` further on in the tower."""
    _, block, side, pack = FACTS[name]
    tiles = [by_token(own, side) for _, own in looked(model, pixels, block)]
    tiles = tiles[start : start + pieces]
    if pack is None:
        numbers = list(range(sum(map(len, tiles))))
    else:
        numbers = [int(number) for number in pack(model, size[::-1]) if number >= 0]
    each = len(tiles[0])
    there = [[number for number in numbers if number // each == n] for n in range(len(tiles))]
    scores = [[tiles[n][number % each] for number in own] for n, own in enumerate(there) if own]
    there = [own for own in there if own]
    kept = {
        own[place]
        for own, chosen in zip(there, best_of_each(scores, KEEP), strict=True)
        for place in chosen
    }
    return [token for token, number in enumerate(numbers) if number in kept]


def test_attention_in_the_tower_is_that_of_the_cells(
    name: str, loaded: Callable[[str], tuple[Any, Any]]
) -> None:
    model, processor = loaded(name)
    sizes = {"llava-onevision": ((48, 32), (30, 20))}.get(name, (WIDE, SMALL))  # not resized
    pictures = [picture(*size, seed=number) for number, size in enumerate(sizes)]
    text = "a" + "I what I is?".replace("I", FACTS[name][0].image)
    given = [pictures] if FACTS[name][0].nested else pictures
    inputs = dict(processor(images=given, text=[text], return_tensors="pt"))
    inputs.pop("batch_num_images", None)  # as if each had a sample of its own
    inputs = {key: x.float() if x.is_floating_point() else x for key, x in inputs.items()}
    pixels = inputs["pixel_values"]
    counts = [
        len(family_of(model).tower_grids(g)) for g in family_of(model).grids_of(inputs)["image"]
    ]
    if pixels.ndim == 5:  # padded to equally many tiles
        pixels = torch.cat([own[:count] for own, count in zip(pixels, counts, strict=True)])
    assert len(pixels) == sum(counts)
    with prunus.prune(model, FasterVLM(keep=KEEP)) as run, torch.no_grad():
        model(**inputs)
    start = 0
    for number, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        expected = wanted(name, model, pixels, size, count, start)
        assert run.trace[0].kept[0][number].tolist() == expected
        start += count


@pytest.mark.parametrize(
    "invariant",
    [
        "rows_of_a_batch_equal_the_rows_alone",
        "beams_score_as_the_oracle_does",
        "identity_at_the_neutral_setting",
        "prefill_equals_the_masked_full_length_run",
        "every_decode_step_equals_the_masked_full_length_run",
    ],
)
def test_invariants(invariant: str, name: str, loaded: Callable[[str], tuple[Any, Any]]) -> None:
    if name == "llava-onevision":
        pytest.skip("its prompts have pictures that are resized")
    hold(invariant, case_of(FACTS[name][0], loaded(name), "I"), FasterVLM(keep=KEEP))


def test_merging_there_is_refused_before_anything_runs(
    name: str, loaded: Callable[[str], tuple[Any, Any]]
) -> None:
    model, processor = loaded(name)
    if name == "llava-onevision":  # works on its videos
        inputs = encoded(FACTS[name][0], processor, "aI what")
        with prunus.prune(model, EvoPrune(keep=0.5)), torch.no_grad():
            with pytest.raises(PrunusError, match="cut into tiles that the model resizes"):
                model(**inputs)
            small = processor(images=picture(*SMALL), text="<image>a", return_tensors="pt")
            with pytest.raises(PrunusError, match="where an image is cut into tiles"):
                model(**small)
        return
    with pytest.raises(PrunusError, match="methods inside the vision tower are not supported"):
        prunus.prune(model, EvoPrune(keep=0.5))
    family = type(family_of(model))
    looks, merges = (Named(kind.name, kind) for kind in (FasterVLM, ToMe))
    assert runs(looks, family) and not runs(merges, family)
    assert not runs(looks, Llama4)  # nobody has said where its blocks are
