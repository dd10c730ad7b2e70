"""What the plug-in sees is what prunus.prune sees: the same tokens stay, and the same states go on.

These tests need no vLLM.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

import prunus
from prunus.errors import PrunusError
from prunus.inference.named import build_methods
from prunus.method.base import runs_ahead
from prunus.vllm.core import Loader, vision_core
from prunus.vllm.counts import Counts
from prunus.vllm.eyes import Eyes, Left
from prunus.vllm.first import axes_of, check_axes
from prunus.vllm.folder import write_builtin
from prunus.vllm.positions import extent, offsets, taken_apart, with_positions
from prunus.vllm.rope import ThreeRows
from tests.support.llava import IMAGE as LLAVA_IMAGE
from tests.support.models import case_of

PIXELS = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
METHODS = {
    "llava-clip": (
        "clse@ahead",
        "divprune",
        "evoprune",
        "visionzip",
        "prumerge",
        "tome",
        "pooling",
        "hired",
    ),
    "qwen2.5-vl": ("clse@ahead", "divprune", "evoprune", "visionzip", "pooling"),
    "qwen2.5-vl-video": ("clse@ahead", "evs", "vidcom2"),
}
CASES = [(kind, method) for kind, methods in METHODS.items() for method in methods]


def eyes_of(model: Any, method: str, keep: str, **more: Any) -> Eyes:
    config = copy.deepcopy(model.config)
    config.prunus = {"method": method, "keep": keep, **more}
    ahead = runs_ahead(build_methods(method, keep, ()) or ())
    core = vision_core(config, torch.float32, torch.device("cpu"), ahead)
    loader = Loader(core)
    rest = dict(loader.rest(model.state_dict().items()))
    assert loader.loaded() and all("vision" not in name and "visual" not in name for name in rest)
    assert any("language_model.layers.0." in name for name in loader.loaded()) == ahead
    assert any(".layers.0." in name for name in rest)  # vLLM's own language model has them too
    return Eyes(config, core, model.get_input_embeddings().weight, torch.float32)


def looked(eyes: Eyes, inputs: dict[str, Tensor], kind: str) -> list[Left]:
    call = {name: inputs[name] for name in PIXELS if name in inputs}
    with torch.inference_mode():
        return eyes.see(kind, call, None, places_of(eyes, inputs, kind))


def places_of(eyes: Eyes, inputs: dict[str, Tensor], kind: str) -> Tensor | None:
    """Of a model of three axes of positions, as its class in vLLM gives them."""
    if f"{kind}_grid_thw" not in inputs:
        return None
    model = ThreeRows()
    model.config = eyes.family.config
    return model.places(kind, inputs)


def entering(model: Any, inputs: dict[str, Tensor], methods: Any) -> tuple[Tensor, Any]:
    """States that enter the first decoder layer of one prompt, and what was kept."""
    seen: list[Tensor] = []
    norm = model.model.language_model.layers[0].input_layernorm
    handle = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad(), prunus.prune(model, list(methods), positions="original") as run:
        model(**inputs)
    handle.remove()
    return seen[0][0], [list(map(int, own)) for own in run.trace[-1].kept[0]]


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_it_sees_what_prune_sees(kind: str, method: str) -> None:
    case, keep = case_of(kind), "0.5"
    inputs = case.prompts.rows(2)
    visual = "video" if kind.endswith("video") else "image"
    if visual == "video":
        inputs = case.prompts.rows(1)
    states, kept = entering(case.model, inputs, build_methods(method, keep, ()) or ())
    left = looked(eyes_of(case.model, method, keep), inputs, visual)
    assert [one.kept.tolist() for one in left] == kept
    assert [len(one.features) for one in left] == [len(own) for own in kept]
    text = len(states) - sum(map(len, kept))
    assert text == len(inputs["input_ids"][0]) - int(_visual(case.model, inputs).sum())
    for one in left:  # in the prompt they stand together
        first = (states - one.features[0]).abs().amax(1).argmin()
        torch.testing.assert_close(states[first : first + len(one.features)], one.features)


def _visual(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    ids, config = inputs["input_ids"][0], model.config
    tokens = [LLAVA_IMAGE, getattr(config, "video_token_id", LLAVA_IMAGE), config.image_token_id]
    return torch.isin(ids, torch.tensor(tokens))


def test_a_batch_is_what_each_is_alone() -> None:
    case = case_of("qwen2.5-vl")
    eyes = eyes_of(case.model, "divprune", "0.25")
    inputs = case.prompts.rows(3)
    table, pixels = inputs["image_grid_thw"], inputs["pixel_values"]
    together = looked(eyes, inputs, "image")
    sizes = table.prod(1).tolist()
    for number, own in enumerate(pixels.split(sizes)):
        one = {"pixel_values": own, "image_grid_thw": table[number : number + 1]}
        [alone] = looked(eyes, one, "image")
        assert torch.equal(alone.kept, together[number].kept)
        assert torch.equal(alone.places, together[number].places)
        torch.testing.assert_close(alone.features, together[number].features)


def test_counts_are_known_before_anything_is_seen() -> None:
    case = case_of("qwen2.5-vl")
    eyes = eyes_of(case.model, "visionzip", "0.3")
    inputs = case.prompts.rows(3)
    counts = Counts(eyes.family.config)
    grids = eyes.family.grids_of(inputs)["image"]
    left = looked(eyes, inputs, "image")
    assert [counts.left(grid) for grid in grids] == [len(one.features) for one in left]


def test_marks_stay() -> None:
    case = case_of("llava-clip-full")  # a CLS token in front of each image's tokens
    eyes = eyes_of(case.model, "divprune", "4")
    [one] = looked(eyes, case.prompts.rows(1), "image")
    assert len(one.kept) == 4 and len(one.features) == 5 and int(one.places[0]) == 0
    assert Counts(eyes.family.config).left(eyes.family.default_grid()) == 5


def test_nothing_is_left_behind() -> None:
    case = case_of("llava-clip")
    eyes = eyes_of(case.model, "evoprune", "8")
    eyes.close()
    inputs = case.prompts.rows(1)
    with torch.no_grad():
        found = eyes.core.get_image_features(inputs["pixel_values"]).pooler_output
        wanted = case.model.model.get_image_features(inputs["pixel_values"]).pooler_output
    assert torch.equal(torch.cat([*found]), torch.cat([*wanted]))


def test_weights_that_are_missing_or_do_not_fit() -> None:
    model = case_of("llava-clip").model
    core = vision_core(model.config, torch.float32, torch.device("cpu"))
    state = model.state_dict()
    name = next(key for key in state if "multi_modal_projector" in key and "weight" in key)
    loader = Loader(core)
    list(loader.rest((key, value) for key, value in state.items() if key != name))
    with pytest.raises(PrunusError, match="no weights for 1 parameters.*multi_modal_projector"):
        loader.loaded()
    with pytest.raises(PrunusError, match="quantised"):
        list(Loader(core).rest([(name, torch.zeros(3, 5, dtype=torch.uint8))]))


def test_names_of_older_checkpoints() -> None:
    model = case_of("llava-clip").model
    core = vision_core(model.config, torch.float32, torch.device("cpu"))
    old = {}
    for name, value in model.state_dict().items():
        own = name.removeprefix("model.")
        if own.startswith("vision_tower."):
            own = own.replace("vision_tower.", "vision_tower.vision_model.")
            own = own.replace("vision_model.vision_model.", "vision_model.")
        old[own] = value
    loader = Loader(core)
    list(loader.rest(old.items()))
    assert loader.loaded() == {name for name, _ in core.named_parameters()}


@pytest.mark.parametrize("front", ["model.language_model.", "language_model.model.", "model."])
def test_the_first_layer_by_any_name(front: str) -> None:
    model = case_of("llava-clip").model
    core = vision_core(model.config, torch.float32, torch.device("cpu"), ahead=True)
    given = {
        name.replace("model.language_model.", front): value
        for name, value in model.state_dict().items()
    }
    loader = Loader(core)
    rest = dict(loader.rest(given.items()))
    assert loader.loaded() == {name for name, _ in core.named_parameters()}
    layer = model.model.language_model.layers[0].state_dict()
    assert all(
        torch.equal(value, layer[name])
        for name, value in core.language_model.layers[0].state_dict().items()
    )
    assert sum(f"{front}layers" in name for name in rest) == len(layer) * len(
        model.model.language_model.layers
    )
    missing = f"{front}layers.0.mlp.up_proj.weight"
    loader = Loader(vision_core(model.config, torch.float32, torch.device("cpu"), ahead=True))
    list(loader.rest((name, value) for name, value in given.items() if name != missing))
    with pytest.raises(PrunusError, match=r"layers\.0\.mlp\.up_proj.*not quantised"):
        loader.loaded()


@pytest.mark.parametrize("sections", [[6, 5, 5], [3, 4, 1]])
@pytest.mark.parametrize("interleaved", [False, True])
def test_channels_are_turned_by_the_axes_that_vllm_reads(
    sections: list[int], interleaved: bool
) -> None:
    config = copy.deepcopy(case_of("qwen2.5-vl").model.config)
    text = config.text_config
    text.head_dim = 2 * sum(sections)
    text.rope_parameters |= {"mrope_section": sections, "mrope_interleaved": interleaved}
    core = vision_core(config, torch.float32, torch.device("cpu"), ahead=True)
    axes = axes_of(text.rope_parameters, sum(sections))
    wanted = [0] * sections[0] + [1] * sections[1] + [2] * sections[2]
    if interleaved:  # time, row, column, time, ..., as long as there are some
        wanted = [0 if n % 3 and n >= 3 * sections[n % 3] else n % 3 for n in range(len(wanted))]
    assert axes == wanted
    if sections[2] == 5:
        assert sorted(axes) == sorted([0] * 6 + [1] * 5 + [2] * 5)
    check_axes(core.language_model, axes)
    with pytest.raises(PrunusError, match="turns channels by other positions"):
        check_axes(core.language_model, axes[::-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_positions_survive_half_precision_and_chunks(dtype: torch.dtype) -> None:
    away = offsets(30, 40, 50, 2.5)
    assert extent(30, 40, 50, 2.5) == int(away.max()) + 1 == 73
    away[0] += 70_000  # as of a long video
    features = torch.randn(away.shape[1], 8).to(dtype)
    carried = with_positions(features, away)
    assert carried.dtype == dtype
    pieces, found = taken_apart([carried[:17], carried[17:]])
    assert torch.equal(found, away) and torch.equal(torch.cat(pieces), features)


def test_offsets_are_frames_rows_columns() -> None:
    assert offsets(2, 1, 3, 1.5).T.tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 0, 2],
        [1, 0, 0],
        [1, 0, 1],
        [1, 0, 2],
    ]


def test_the_builtin_model_turns_as_it_was_written_for_vllm(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(write_builtin("tiny-qwen", tmp_path / "model"))
    core = vision_core(config, torch.float32, torch.device("cpu"), ahead=True)
    model, _ = prunus.load("tiny-qwen", dtype="float32")
    ids, like = torch.randint(0, 50, (3, 2, 7)), torch.zeros(1)
    own = model.model.language_model.rotary_emb(like, ids)
    found = core.language_model.rotary_emb(like, ids)
    assert all(torch.equal(a, b) for a, b in zip(found, own, strict=True))
