"""The built model is an unmodified LLaVA, and training computes exactly what it computes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from prunus.io import checkpoint
from prunus.recipes.answers import all_places, ask_all, draw_scenes, pixels_of
from prunus.recipes.decoder import decode
from prunus.recipes.export import export, export_checkpoint
from prunus.recipes.model import Shape, build_model, build_processor
from prunus.recipes.tower import project
from prunus.tasks.scenes import make_scene, render

SMALL = Shape(patch=16, tower_layers=3, tower_width=64, tower_mlp=64, layers=2, width=64, mlp=64)


@pytest.fixture(scope="module")
def processor() -> LlavaProcessor:
    return build_processor()


def prompt(processor: LlavaProcessor, *texts: str) -> str:
    content = [{"type": "image"}, {"type": "text", "text": texts[0]}]
    messages: list[dict] = [{"role": "user", "content": content}]
    for number, text in enumerate(texts[1:]):
        messages.append({"role": ("assistant", "user")[number % 2], "content": text})
    return processor.apply_chat_template(messages, add_generation_prompt=True)


def test_prompt_holds_576_placeholders_and_unchanged_pixels(processor: LlavaProcessor) -> None:
    image = render(make_scene(1))
    text = prompt(processor, "What color is the star?")
    inputs = processor(images=image, text=text, return_tensors="pt")
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert int((inputs["input_ids"] == image_id).sum()) == 576
    expected = (torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255 - 0.5) / 0.25
    assert torch.allclose(inputs["pixel_values"][0], expected, atol=1e-6)


def test_chat_template_of_several_turns(processor: LlavaProcessor) -> None:
    text = prompt(processor, "one?", "two", "three?")
    assert text == "USER: <image>\none? ASSISTANT: two</s>USER: three? ASSISTANT:"


def test_any_printable_text_is_encoded_without_unknowns(processor: LlavaProcessor) -> None:
    tokenizer = processor.tokenizer
    ids = tokenizer("Zanzibar's 42 crêpes, at {once}!")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == (
        "zanzibar's42crepes,at{once}!"
    )
    assert tokenizer.padding_side == "left"


def test_default_shape_is_deep_enough_for_layer_schedules() -> None:
    config = build_model().config
    assert config.vision_config.num_hidden_layers >= 9
    assert config.text_config.num_hidden_layers >= 12
    assert config.vision_feature_layer == -2
    assert config.vision_feature_select_strategy == "default"


def test_training_forward_equals_the_unmodified_model() -> None:
    model = build_model(SMALL)
    scenes = draw_scenes(0, 2, (3, 7))
    pixels = pixels_of(scenes)
    places = all_places(model, 2)
    visual = places.shape[1]
    text = ask_all(scenes, 6, 0, visual, np.random.default_rng(0))
    start = build_processor(SMALL).tokenizer.convert_tokens_to_ids(["<s>", "USER:"])
    with torch.no_grad():
        features = project(model, pixels, places)
        ours = model.lm_head(decode(model, features, places, text))
        for row in range(2):
            for number in range(int(text.dialogue[row].max()) + 1):
                at = (text.dialogue[row] == number).nonzero()[:, 0]
                image = torch.full((visual,), model.config.image_token_id)
                ids = torch.cat([torch.tensor(start), image, text.ids[row, at]])[None]
                theirs = model(
                    input_ids=ids,
                    pixel_values=pixels[row : row + 1],
                    attention_mask=torch.ones_like(ids),
                ).logits[0, 2 + visual :]
                assert torch.allclose(ours[row, at], theirs, atol=1e-5)


def test_tower_windows_use_the_position_embeddings_of_their_place() -> None:
    model = build_model(SMALL)
    pixels = pixels_of(draw_scenes(0, 1, (3, 7)))
    places = all_places(model, 1)
    with torch.no_grad():
        here, there = project(model, pixels, places), project(model, pixels, places.flip(1))
    assert not torch.allclose(here, there)


def test_export_loads_as_a_plain_pretrained_model(tmp_path: Path) -> None:
    model = build_model(SMALL)
    folder = tmp_path / "model"
    for _ in range(2):  # the second time replaces the first
        export(model, build_processor(SMALL), folder)
    loaded = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    for ours, theirs in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours.bfloat16().float(), theirs)
    assert isinstance(LlavaProcessor.from_pretrained(folder), LlavaProcessor)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_several_checkpoints_are_exported_as_their_mean(tmp_path: Path) -> None:
    shape = {**asdict(SMALL)}
    models = [build_model(SMALL), build_model(SMALL)]
    with torch.no_grad():
        for weight in models[1].parameters():
            weight.add_(0.5)
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for path, model in zip(paths, models, strict=True):
        checkpoint.save(path, {"model": model.state_dict(), "shape": shape})
    export_checkpoint(paths[0], tmp_path / "model", paths[1])
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for ours, theirs in zip(models[0].parameters(), loaded.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours + 0.25, rtol=2**-8, atol=0.0)  # one bf16 rounding
    checkpoint.save(paths[1], {"model": {}, "shape": {**shape, "layers": 9}})
    with pytest.raises(ValueError, match="shapes differ"):
        export_checkpoint(paths[0], tmp_path / "model", paths[1])
