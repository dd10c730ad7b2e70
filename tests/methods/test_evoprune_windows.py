"""EvoPrune inside Qwen2.5-VL's tower: whole 2x2 units, windows, frames, images of any size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import prunus
from prunus import EvoPrune
from prunus.families.qwen2_5_vl import Qwen25VL
from prunus.families.towers.base import Frames
from prunus.grid import Grid
from tests.support.facts import counts as budget
from tests.support.literal.evoprune import literal
from tests.support.oracles.merged_windows import frames_of, merged_frame
from tests.support.qwen import MERGE, QwenPrompts, qwen

VARIANTS = {
    "default": EvoPrune(keep=0.4),
    "tome": EvoPrune(keep=6, diversity=0.0, protect=0.0),
    "hidden": EvoPrune(keep=7, metric="hidden", tau=0.6, neighbours=3, diversity=2.0, start=0),
    "appended": EvoPrune(keep=3, order="append", schedule="mean", start=0),
    "appended-cls": EvoPrune(keep=3, order="append", parity="cls", schedule="mean", start=0),
    "pairs": EvoPrune(keep=4, by_size=False, schedule="mean", start=0),
    "protected": EvoPrune(keep=7, protect=1.0, start=0),
    "down-to-one": EvoPrune(keep=1, schedule="mean", start=0),
}


def features(model: Any, inputs: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """What the language model's side is handed, by kind and input."""
    found = {}
    if "pixel_values" in inputs:
        image = inputs["pixel_values"], inputs["image_grid_thw"]
        found["image"] = list(model.model.get_image_features(*image).pooler_output)
    if "pixel_values_videos" in inputs:
        video = inputs["pixel_values_videos"], inputs["video_grid_thw"]
        found["video"] = list(model.model.get_video_features(*video).pooler_output)
    return found


@pytest.mark.parametrize("kinds", [("image",), ("video", "image")])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_chooses_and_merges_as_the_literal_reading_does(kinds: Any, name: str) -> None:
    model, inputs, method = qwen(), QwenPrompts(kinds).rows(2, 1), VARIANTS[name]
    with prunus.prune(model, method) as run, torch.no_grad():
        model(**inputs)
        handed = features(model, inputs)
    (entry,) = run.trace
    flat: dict[str, list[Any]] = {}
    parts = (entry.kind, entry.kept, entry.merged_into)
    for sample in zip(*parts, strict=True):
        for kind, kept, into in zip(*sample, strict=True):
            flat.setdefault(kind, []).append((kept.tolist(), into.tolist()))
    offsets: dict[tuple[str, int], int] = {}
    for kind, number, grid, pixels in frames_of(inputs, MERGE):
        first = offsets.get((kind, number), 0)
        offsets[kind, number] = first + grid.size
        gone = list(method.merges(4, grid.size, budget(method, grid.size)[0]))
        with torch.no_grad():
            tokens, history = merged_frame(
                model.model.visual, pixels, grid, literal(method, gone), method.by_size
            )
        kept, into = flat[kind][number]
        own = [index - first for index in kept if first <= index < first + grid.size]
        assert own == sorted(tokens) and len(own) == budget(method, grid.size)[0]
        for index in range(grid.size):
            wanted = tokens.get(index, torch.zeros(64))
            assert float((handed[kind][number][first + index] - wanted).abs().max()) < 1e-4
        stands = [index - first for index in into[first : first + grid.size]]
        assert {index: stands.count(index) for index in own} == history[-1]


@pytest.mark.parametrize("size", [(1, 4, 5), (3, 6, 4), (2, 3, 3), (1, 1, 7)])
def test_the_order_of_windows_is_that_of_the_tower(size: tuple[int, int, int]) -> None:
    from transformers.vision_utils import get_vision_window_index

    model = qwen()
    tower, vision = Qwen25VL(model).tower_adapter(), model.config.vision_config
    grid = Grid(*size, (8, 8))
    frames = tower.frames([grid])
    assert frames == [Frames(Grid(1, *size[1:], (8, 8)), [(0, t) for t in range(size[0])])]
    index, _ = get_vision_window_index(
        torch.tensor([[size[0], size[1] * MERGE, size[2] * MERGE]]),
        spatial_merge_size=MERGE,
        window_size=vision.window_size,
        patch_size=vision.patch_size,
    )
    ours = tower.projected(frames, {}).slots[0].flatten()
    assert torch.equal(torch.as_tensor(index).argsort(), ours)


def test_later_blocks_run_on_less_and_empty_windows_vanish() -> None:
    model, inputs = qwen(), QwenPrompts().rows(1)
    seen: list[tuple[int, list[int]]] = []

    def note(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        seen.append((len(states), kwargs["cu_seqlens"].diff().tolist()))

    method = EvoPrune(keep=1, schedule="mean", start=0)
    with prunus.prune(model, method) as run, torch.no_grad():
        handles = [
            block.register_forward_hook(note, with_kwargs=True)
            for block in model.model.visual.blocks
        ]
        model(**inputs)
    for handle in handles:
        handle.remove()
    assert list(method.merges(4, 20, budget(method, 20)[0])) == [10, 5, 3, 1]
    assert [count for count, _ in seen] == [4 * 20, 4 * 10, 4 * 5, 4 * 2]
    assert all(sum(segments) == count and min(segments) > 0 for count, segments in seen)
    assert len(seen[0][1]) == 6 and len(seen[2][1]) < 6  # windows of blocks 0 and 2
    assert seen[1][1] == [40] and seen[3][1] == [8]  # blocks 1 and 3 see the frame
    assert run.report()["tokens"]["kept"] == 1


@pytest.mark.parametrize("kinds", [("image",), ("video", "image")])
def test_the_report_counts_the_work_that_torch_counts(kinds: Any) -> None:
    model, inputs = qwen(), QwenPrompts(kinds).rows(2, 1)
    model.set_attn_implementation("eager")
    with prunus.prune(model, EvoPrune(keep=4, diversity=0.0, schedule="mean", start=0)) as run:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(**inputs)
    counted = counter.get_flop_counts()["Qwen2_5_VLForConditionalGeneration.model.visual"]
    report = run.report()["flops"]
    mine = report["pruned"]
    assert mine["method"] > 0 and report["encoder_ratio"] < 0.75
    total = mine["encoder"] + mine["projector"] + mine["method"]
    assert sum(counted.values()) / 2 == pytest.approx(total, rel=2e-2)  # the report: per sample


def test_an_image_within_the_budget_is_left_alone() -> None:
    model, inputs = qwen(), QwenPrompts().rows(2)  # 20 and 24 tokens
    with torch.no_grad():
        expected = features(model, inputs)["image"]
    with prunus.prune(model, EvoPrune(keep=20)) as run, torch.no_grad():
        model(**inputs)
        found = features(model, inputs)["image"]
    assert [len(kept) for kept in run.trace[0].kept[0]] == [20, 20]
    assert (found[0] - expected[0]).abs().max() < 1e-5
    assert (found[1] - expected[1]).abs().max() > 1e-3
    first, second = run.trace[0].scores[0]
    assert first.isnan().all() and not second.isnan().any()


def test_features_computed_before_are_taken_with_their_grids_only() -> None:
    model, inputs = qwen(), QwenPrompts().rows(2)
    given = {k: v for k, v in inputs.items() if k != "pixel_values"}
    other = QwenPrompts().rows(2, seed=5)
    with prunus.prune(model, EvoPrune(keep=8)), torch.no_grad():
        expected = model(**inputs).logits
        one = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        assert torch.equal(model(**given, mm_encoder_outputs={"image": one}).logits, expected)
        model.model.get_image_features(other["pixel_values"], other["image_grid_thw"])
        with pytest.raises(ValueError, match="not those of the vision tower's last call"):
            model(**given, mm_encoder_outputs={"image": one})
        half = inputs["pixel_values"][:80], inputs["image_grid_thw"][:1]
        model.model.get_image_features(*half)
        with pytest.raises(ValueError, match="did not run for this prompt"):
            model(**given, mm_encoder_outputs={"image": one})


def test_what_the_tower_cannot_do_is_refused() -> None:
    model = qwen()
    with pytest.raises(ValueError, match="proportional attention.*qwen2.5-vl"):
        prunus.prune(model, EvoPrune(keep=8, proportional=True))
    inputs = QwenPrompts().rows(1)
    with torch.no_grad():
        plain = model(**inputs).logits
    with prunus.prune(model, EvoPrune(keep=3)), torch.no_grad():
        with pytest.raises(ValueError, match="3 of 20 visual tokens cannot be reached.* is 5 "):
            model(**inputs)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, plain)
