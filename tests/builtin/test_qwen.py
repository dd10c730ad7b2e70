"""tiny-qwen is an unmodified Qwen2.5-VL, and training computes exactly what it computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from prunus.builtin import load_builtin
from prunus.evaluate import evaluate, load_builtin_set, make_cells
from prunus.io import checkpoint
from prunus.recipes.export import export_checkpoint
from prunus.recipes.qwen import QwenShape, build_model, build_processor
from prunus.recipes.qwen.answers import ask_all, choose, draw_batch, encode, ink
from prunus.recipes.qwen.decoder import HEAD, decode, places
from prunus.recipes.qwen.labels import label_scene, label_video
from prunus.recipes.qwen.probe import GONE, NEW, SAME, changes
from prunus.recipes.qwen.tower import project
from prunus.recipes.qwen.warm import start_from
from prunus.recipes.qwen.words import IMAGE, START, VIDEO, VISION_END, VISION_START
from prunus.recipes.schedule import Stage
from prunus.recipes.train import CHECKPOINT, train
from prunus.tasks.labels import IGNORE
from prunus.tasks.pictures import FPS, image_pixels, image_size, picture, video_pixels
from prunus.tasks.scenes import KINDS, make_scene
from prunus.tasks.videos import FRAMES, MOTIONS, Actor, VideoScene, make_video, render_video

SMALL = QwenShape(depth=3, full=(1,), tower_width=64, tower_mlp=64, layers=4, width=64, mlp=64)
STAGES = (
    Stage("see", "naming", steps=2, rate=1e-3, batch=2, objects=(4, 6), videos=0.5),
    Stage("few", "answers", steps=2, rate=1e-3, batch=2, tokens=9, most=20, reuse=2, questions=4),
    Stage("all", "answers", steps=2, rate=1e-3, batch=2, tower_rate=0.1, questions=4, videos=0.7),
)


@pytest.fixture(scope="module")
def model() -> Qwen2_5_VLForConditionalGeneration:
    return build_model(SMALL)


@pytest.fixture(scope="module")
def processor() -> Qwen2_5_VLProcessor:
    return build_processor(SMALL)


def prompt(processor: Qwen2_5_VLProcessor, kind: str, text: str) -> str:
    message = {"role": "user", "content": [{"type": kind}, {"type": "text", "text": text}]}
    return str(processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False))


def clip_inputs(processor: Qwen2_5_VLProcessor, frames: list) -> dict[str, torch.Tensor]:
    facts = {"total_num_frames": FRAMES, "fps": FPS, "frames_indices": list(range(FRAMES))}
    text = prompt(processor, "video", "what moves?")
    given = {"video_metadata": [facts], "do_sample_frames": False}
    return dict(processor(videos=[frames], text=text, return_tensors="pt", **given))


def test_the_tower_of_training_is_that_of_the_model(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor
) -> None:
    # 14 by 18 tokens: windows of four are cut at both borders
    size = (224, 288)
    scenes = [make_scene(1), make_scene(2)]
    text = prompt(processor, "image", "what?")
    images = [picture(scene, size) for scene in scenes]
    inputs = processor(images=images, text=[text, text], return_tensors="pt")
    video = make_video(1)
    frames = render_video(video, 112)
    film = clip_inputs(processor, frames)
    with torch.no_grad():
        ours = project(model, image_pixels(scenes, size))
        theirs = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        for row, features in enumerate(theirs.pooler_output):
            torch.testing.assert_close(ours[row], features, atol=2e-5, rtol=0)
        moving = project(model, video_pixels([video], 112)).flatten(0, 1)
        found = model.model.get_video_features(film["pixel_values_videos"], film["video_grid_thw"])
        torch.testing.assert_close(moving, found.pooler_output[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("videos", [0.0, 1.0])
def test_the_decoder_of_training_is_that_of_the_model(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, videos: float
) -> None:
    batch = draw_batch(3, 2, SMALL.cell, (3, 7), videos)
    text = ask_all(batch, 5, 0, np.random.default_rng(0))
    tokenizer = processor.tokenizer
    start = tokenizer.convert_tokens_to_ids([START, "user", VISION_START])
    stop = tokenizer.convert_tokens_to_ids([VISION_END])
    placeholder = tokenizer.convert_tokens_to_ids(VIDEO if videos else IMAGE)
    kind = "video" if videos else "image"
    patches = torch.tensor([[batch.grid[0], *(SMALL.merge * side for side in batch.grid[1:])]])
    with torch.no_grad():
        features = encode(model, batch)
        visual = features.shape[1]
        at = places(batch.grid, batch.interval)[:, None].expand(-1, 2, -1)
        hidden, seen = decode(model, features, at, max(batch.grid[1:]), text, probe=2)
        assert seen is not None and seen.shape == (2, visual + 1, SMALL.width)
        ours = model.lm_head(hidden)
        for row in range(2):
            for number in range(int(text.dialogue[row].max()) + 1):
                own = (text.dialogue[row] == number).nonzero()[:, 0]
                image = [placeholder] * visual
                ids = torch.tensor([[*start, *image, *stop, *text.ids[row, own].tolist()]])
                given = {f"{kind}_grid_thw": patches}
                if videos:
                    rate = model.config.vision_config.tokens_per_second
                    given["second_per_grid_ts"] = torch.tensor([batch.interval / rate])
                theirs = model(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    mm_token_type_ids=(ids == placeholder).int() * (2 if videos else 1),
                    mm_encoder_outputs={
                        kind: BaseModelOutputWithPooling(pooler_output=[features[row]])
                    },
                    **given,
                ).logits[0, HEAD + visual + 1 :]
                torch.testing.assert_close(ours[row, own], theirs, atol=2e-5, rtol=0)


def test_an_interrupted_run_is_bit_identical_and_can_be_exported(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train("tiny-qwen", whole, stages=STAGES, shape=SMALL)
    assert not train("tiny-qwen", broken, stages=STAGES, shape=SMALL, minutes=0)
    for _ in range(20):
        if train("tiny-qwen", broken, stages=STAGES, shape=SMALL, minutes=0, resume=True):
            break
    else:
        pytest.fail("the run never ended")
    expected, found = (checkpoint.load(folder / CHECKPOINT)["model"] for folder in (whole, broken))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    export_checkpoint(whole / CHECKPOINT, tmp_path / "model")
    loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "model", dtype="float32")
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, expected[name].bfloat16().float())
    assert Qwen2_5_VLProcessor.from_pretrained(tmp_path / "model").video_processor is not None


def test_the_warm_start_copies_what_both_know() -> None:
    model, (teacher, _) = build_model(), load_builtin("tiny-llava")
    start_from(model, teacher)
    own, other = model.model.language_model, teacher.model.language_model
    assert torch.equal(own.layers[5].mlp.up_proj.weight, other.layers[5].mlp.up_proj.weight)
    assert not own.layers[5].self_attn.q_proj.bias.any()
    with pytest.raises(ValueError, match="hidden_size"):
        start_from(build_model(SMALL), teacher)


def test_the_processor_leaves_drawn_sizes_alone_and_survives_a_round_trip(
    processor: Qwen2_5_VLProcessor, tmp_path: Path
) -> None:
    processor.save_pretrained(tmp_path)
    again = Qwen2_5_VLProcessor.from_pretrained(tmp_path)
    scene, size = make_scene(3), image_size(5)
    text = prompt(processor, "image", "What color is the star?")
    for one in (processor, again):
        inputs = one(images=[picture(scene, size)], text=text, return_tensors="pt")
        assert inputs["image_grid_thw"].tolist() == [
            [1, size[0] // SMALL.patch, size[1] // SMALL.patch]
        ]
        visual = int((inputs["input_ids"] == one.image_token_id).sum())
        assert visual == size[0] * size[1] // SMALL.cell**2
        film = clip_inputs(one, render_video(make_video(2), 128))
        assert film["second_per_grid_ts"].tolist() == [1.0]
    ids = processor.tokenizer("Zanzibar's 42 crêpes, at {once}!")["input_ids"]
    assert processor.tokenizer.unk_token_id not in ids
    small = np.zeros((20, 40, 3), dtype=np.uint8)
    grid = processor(images=[small], text=text, return_tensors="pt")["image_grid_thw"][0]
    assert int(grid.prod()) * SMALL.patch**2 >= 64 * 64


def test_sizes_of_the_evaluation_set_take_turns() -> None:
    sizes = [image_size(number) for number in range(32)]
    assert len(set(sizes[:16])) == 16 and sizes[:16] == sizes[16:]
    assert sum(high != wide for high, wide in sizes) > 16


def test_labels_name_what_is_there() -> None:
    scene = make_scene(7)
    labels = label_scene(scene, 14, 18)
    rows, cols = np.nonzero(labels.owner >= 0)
    assert rows.size
    for row, col in zip(rows, cols, strict=True):
        item = scene.objects[labels.owner[row, col]]
        assert KINDS[labels.words["kind"][row, col]] == item.kind
        y, x = labels.center[row, col] + (row + 0.5, col + 0.5)
        assert item.center == pytest.approx((x * 192 / 18, y * 192 / 14), abs=1e-3)
    assert labels.middle.sum() == len(scene.objects)
    video = make_video(8, objects=(3, 4))
    for number, one in enumerate(label_video(video, 8, 8)):
        there = {i for i, o in enumerate(video.objects) if o.corner(2 * number) is not None}
        assert set(np.unique(one.owner[one.owner >= 0])) == there
        for index in there:
            word = list(MOTIONS)[one.words["motion"][one.owner == index][0]]
            assert word == video.objects[index].motion


def test_changes_are_marked_where_something_comes_or_goes() -> None:
    stays = Actor("square", "red", 0, 0, 32)
    comes = Actor("circle", "blue", 64, 0, 32, start=4)
    goes = Actor("star", "green", 64, 64, 32, end=2)
    video = VideoScene(0, (stays, comes, goes))
    [marked] = changes([video], 8, 8)
    marked = marked.view(4, 8, 8)
    assert set(marked[0].unique().tolist()) <= {SAME, IGNORE}
    owners = [label.owner for label in label_video(video, 8, 8)]
    assert (marked[1].numpy() == GONE).tolist() == (owners[0] == 2).tolist()
    assert (marked[2].numpy() == NEW).tolist() == (owners[2] == 1).tolist()
    assert not (marked[3] == NEW).any() and not (marked[3] == GONE).any()


def test_chosen_tokens_show_all_objects_first() -> None:
    batch = draw_batch(5, 2, 16, (3, 4), 1.0)
    shown = ink(batch)
    chosen = choose(batch, 60, np.random.default_rng(0))
    for row, inked in enumerate(shown):
        kept = chosen[row].tolist()
        assert kept == sorted(set(kept)) and len(kept) == 60
        assert set(np.flatnonzero(inked)) <= set(kept) or inked.sum() > 60


@pytest.mark.parametrize(("name", "above"), [("sizes", 0.8), ("videos", 0.6)])
def test_the_model_that_ships_sees(name: str, above: float) -> None:
    model, processor = load_builtin("tiny-qwen")
    few = load_builtin_set(name).first(40)
    dense, blind = evaluate(model, processor, few, make_cells(["blind"], []))
    assert dense.right.mean() >= above
    assert dense.right.mean() >= blind.right.mean() + 0.2
