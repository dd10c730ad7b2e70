"""What is particular to Qwen2.5-VL: positions of three rows, kinds of input, grids of any size.

The invariants of tests/engine run on it as on every family.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, Fixed, Random, Uniform
from prunus.families import family_of
from prunus.grid import Grid
from tests.support.llava import DEPTH
from tests.support.models import Case
from tests.support.oracles.masked import continued, masked_logits, positions, visibility
from tests.support.qwen import IMAGE, VIDEO, QwenPrompts, qwen
from tests.support.runs import gap, plain, survivors

CELL = (8, 8)


@pytest.fixture
def mixed() -> Case:
    return Case("qwen2.5-vl-video", qwen(), QwenPrompts(("video", "image")))


def seen_by(module: Any, name: str) -> tuple[list[Any], Any]:
    """What ``module`` is called with as ``name``, behind all hooks that stand there already."""
    seen: list[Any] = []

    def note(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs[name])

    return seen, module.register_forward_pre_hook(note, with_kwargs=True)


def kept_positions(case: Case, inputs: dict[str, Tensor], trace: list[Any]) -> Tensor:
    """Position ids ``[3, n]`` of the survivors of a single row, as the full prompt has them."""
    alive = survivors(case, inputs, trace)[0]
    return positions(case.model, inputs)[:, 0, alive]


def test_the_prompt_has_positions_of_three_rows(mixed: Case) -> None:
    """Or the tests of this file would say nothing: heights and widths differ from times."""
    inputs = mixed.prompts.rows(2)
    times, heights, widths = positions(mixed.model, inputs)[:, 0]
    assert (times != heights).any() and (heights != widths).any()
    assert int(times.max()) + 1 < inputs["input_ids"].shape[1]  # so the rope delta is not zero


@pytest.mark.parametrize("with_mask", [True, False])
def test_survivors_keep_their_ids_before_the_language_model(mixed: Case, with_mask: bool) -> None:
    inputs = mixed.prompts.rows(2)
    call = inputs if with_mask else {k: v for k, v in inputs.items() if k != "attention_mask"}
    lm = mixed.model.model.language_model
    with prunus.prune(mixed.model, Random(keep=4, layer=None)) as run:
        seen, handle = seen_by(lm.layers[0], "position_embeddings")
        plain(mixed.model, call)
        mixed.model.generate(**call, max_new_tokens=2)
        handle.remove()
    expected = kept_positions(mixed, inputs, run.trace)[:, None]
    for tables in seen[:2]:
        for table, wanted in zip(tables, lm.rotary_emb(torch.zeros(1), expected), strict=True):
            assert torch.equal(table, wanted)


def test_survivors_keep_their_rotation_inside_the_language_model(mixed: Case) -> None:
    inputs = mixed.prompts.rows(2)
    lm = mixed.model.model.language_model
    with prunus.prune(mixed.model, CLSE(keep=5, layers=(2,))) as run:
        seen, handle = seen_by(lm.layers[3], "position_embeddings")
        plain(mixed.model, inputs)
        handle.remove()
    expected = kept_positions(mixed, inputs, run.trace)[:, None]
    for table, wanted in zip(seen[0], lm.rotary_emb(torch.zeros(1), expected), strict=True):
        assert torch.equal(table, wanted)


@pytest.mark.parametrize("method", [CLSE(keep=5), Random(keep=4, layer=None)])
def test_decoding_goes_on_at_the_position_of_the_full_prompt(mixed: Case, method: Any) -> None:
    inputs = mixed.prompts.rows(2, 1)
    options: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    lm = mixed.model.model.language_model
    dense, handle = seen_by(lm, "position_ids")
    mixed.model.generate(**inputs, **options)
    handle.remove()
    deltas = mixed.model.model.rope_deltas
    with prunus.prune(mixed.model, method):
        pruned, handle = seen_by(lm, "position_ids")
        mixed.model.generate(**inputs, **options)
        handle.remove()
    assert torch.equal(mixed.model.model.rope_deltas, deltas) and int(deltas.abs().max()) > 0
    assert len(dense) == len(pruned) == 4
    for ours, theirs in zip(pruned[1:], dense[1:], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("method", [CLSE(keep=5, variant="hybrid"), Random(keep=4, layer=None)])
def test_without_token_types_positions_are_those_of_text(mixed: Case, method: Any) -> None:
    """The unmodified model falls back to 1-D positions then, and so do we."""
    inputs = mixed.prompts.rows(2)
    ids = inputs["input_ids"]
    del inputs["mm_token_type_ids"]
    with prunus.prune(mixed.model, method) as run:
        found = plain(mixed.model, inputs)
    spots = mixed.prompts.spots(ids)
    visible = visibility(run.trace, spots, inputs["attention_mask"], DEPTH, ids.shape[1])
    bare = {k: v for k, v in inputs.items() if not k.endswith(("_thw", "_ts"))}
    assert torch.equal(positions(mixed.model, bare)[0], torch.arange(ids.shape[1]))
    alive = survivors(mixed, inputs, run.trace)
    layers = mixed.model.model.language_model.layers
    hooks = [
        layer.register_forward_pre_hook(
            lambda m, a, k, mask=mask: (a, {**k, "attention_mask": mask[:, None]}),
            with_kwargs=True,
        )
        for layer, mask in zip(layers, visible, strict=True)
    ]
    expected = plain(mixed.model, inputs)
    for hook in hooks:
        hook.remove()
    assert gap(found, expected, alive) < 1e-4


@pytest.mark.parametrize("kinds", [("image", "video"), ("video", "image", "image")])
def test_images_and_videos_are_numbered_as_the_prompt_has_them(kinds: tuple[str, ...]) -> None:
    case = Case("mixed", qwen(), QwenPrompts(kinds))
    inputs = case.prompts.rows(3, 1, 2)
    with prunus.prune(case.model, Uniform(keep=5)) as run:
        plain(case.model, inputs)
        direct = run.trace[0].grid
        case.model.generate(**inputs, max_new_tokens=2, num_beams=2)
    expected = [[Grid(*size, CELL) for size in row] for row in case.prompts.grids(inputs)]
    assert len({grid for row in expected for grid in row}) > 3
    assert direct == run.trace[0].grid == expected


def test_beams_over_rows_with_different_kinds(mixed: Case) -> None:
    """One row holds a video and an image, one only a video, one nothing: features of each kind are
    repeated for beams by themselves."""
    inputs = mixed.prompts.rows(2, 1, 0)
    with prunus.prune(mixed.model, CLSE(keep=5, variant="released")) as run:
        out = mixed.model.generate(
            **inputs,
            max_new_tokens=5,
            min_new_tokens=5,
            num_beams=2,
            length_penalty=0.0,
            output_scores=True,
            return_dict_in_generate=True,
        )
    full = continued(inputs, out.sequences)
    length = inputs["input_ids"].shape[1]
    spots = mixed.prompts.spots(inputs["input_ids"])
    visible = visibility(run.trace, spots, full["attention_mask"], DEPTH, length)
    logits = masked_logits(mixed.model, full, visible)[:, length - 1 : -1]
    chosen = logits.log_softmax(-1).gather(2, out.sequences[:, length:, None]).sum((1, 2))
    assert (chosen - out.sequences_scores).abs().max() < 1e-3


def test_a_budget_holds_for_each_image_and_for_a_whole_video(mixed: Case) -> None:
    inputs = mixed.prompts.rows(2)
    with prunus.prune(mixed.model, CLSE(keep=0.25)) as run:
        plain(mixed.model, inputs)
    sizes = [len(places) for places in mixed.prompts.spots(inputs["input_ids"])[0]]
    assert sizes == [18, 20]
    assert [len(kept) for kept in run.trace[0].kept[0]] == [4, 5]


def test_features_computed_beforehand_need_their_grid(mixed: Case) -> None:
    inputs = mixed.prompts.rows(2)
    core = mixed.model.model
    with prunus.prune(mixed.model, CLSE(keep=5)) as run, torch.no_grad():
        expected = mixed.model(**inputs).logits
        images = core.get_image_features(inputs.pop("pixel_values"), inputs["image_grid_thw"])
        videos = core.get_video_features(
            inputs.pop("pixel_values_videos"), inputs["video_grid_thw"]
        )
        features = {"image": images, "video": videos}
        found = mixed.model(**inputs, mm_encoder_outputs=features).logits
        assert gap(found, expected) < 1e-6 and run.report()["tokens"]["kept"] == 10
        del inputs["image_grid_thw"], inputs["video_grid_thw"]
        with pytest.raises(ValueError, match="image placeholders.*grid as the processor gave it"):
            mixed.model(**inputs, mm_encoder_outputs=features)


def test_bad_grids_and_missing_inputs(mixed: Case) -> None:
    inputs = mixed.prompts.rows(2)
    flat = {**inputs, "image_grid_thw": inputs["image_grid_thw"][0]}
    few = {**mixed.prompts.rows(1), "input_ids": inputs["input_ids"]}
    few |= {name: inputs[name] for name in ("attention_mask", "mm_token_type_ids")}
    other = {**inputs, "image_grid_thw": torch.tensor([[1, 4, 20]])}  # as many patches
    with pytest.raises((ValueError, TypeError)) as unmodified:
        mixed.model(**few)
    with prunus.prune(mixed.model, CLSE(keep=5)) as run, torch.no_grad():
        with pytest.raises(ValueError, match="image_grid_thw has shape"):
            mixed.model.generate(**flat, max_new_tokens=1)
        with pytest.raises(unmodified.type):
            mixed.model(**few)
        mixed.model(**other)
        assert run.trace[0].grid[0][1] == Grid(1, 2, 10, CELL)
        mixed.model(**inputs)
        assert run.trace[0].grid[0][1] == Grid(1, 4, 5, CELL)


def test_what_is_refused(mixed: Case) -> None:
    inputs = mixed.prompts.rows(1)
    with prunus.prune(mixed.model, Random(keep=4, layer=None), positions="compact"):
        with pytest.raises(ValueError, match="compact.*1-D"):
            plain(mixed.model, inputs)
    with prunus.prune(mixed.model, CLSE(keep=5)), torch.no_grad():
        cache = mixed.model(**inputs, use_cache=True).past_key_values
        again = {k: v for k, v in inputs.items() if k != "attention_mask"}
        with pytest.raises(ValueError, match="new images on a KV cache"):
            mixed.model(**again, past_key_values=cache)


def test_grids_are_read_from_the_arguments_of_a_call() -> None:
    family = family_of(qwen())
    grids = family.grids_of(
        {"image_grid_thw": torch.tensor([[1, 8, 10], [1, 4, 4]]), "video_grid_thw": None}
    )
    assert grids == {"image": [Grid(1, 4, 5, CELL), Grid(1, 2, 2, CELL)]}
    assert family.grids_of({"input_ids": torch.ones(1, 3)}) == {}
    ids = torch.tensor([[5, IMAGE, VIDEO]])
    embeds = family.top.get_input_embeddings()(ids)
    for places in (family.placeholders(ids, None), family.placeholders(None, embeds)):
        assert places["image"].tolist() == [[False, True, False]]
        assert places["video"].tolist() == [[False, False, True]]


def test_replaying_a_selection(mixed: Case) -> None:
    inputs = mixed.prompts.rows(2, 1)
    with prunus.prune(mixed.model, CLSE(keep=12, variant="released")) as run:
        expected = plain(mixed.model, inputs)
    with prunus.prune(mixed.model, Fixed.replay(run.trace)):
        assert torch.equal(plain(mixed.model, inputs), expected)
