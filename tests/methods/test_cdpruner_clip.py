"""CDPruner with a CLIP beside the model: transformers' own says what relevance is."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, SiglipConfig, SiglipModel

import prunus
from prunus.companion import Clip, load_clip
from prunus.families import family_of
from prunus.pruners.cdpruner import CDPruner
from tests.methods.test_cdpruner import literal
from tests.support.chat_models import tiny_llava, tiny_qwen
from tests.support.clip import LONGEST, saved_clip
from tests.support.models import case_of

SUFFIX = " Answer with the option's letter from the given choices directly."
LONG = "how many cats are in the picture? " * 4


@pytest.fixture(scope="module")
def llava() -> tuple[Any, Any]:
    return tiny_llava()


@pytest.fixture(scope="module")
def folder(llava: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_clip(tmp_path_factory.mktemp("clip"), llava[0].model.vision_tower)


def inputs_for(processor: Any, *questions: str) -> dict[str, Tensor]:
    """A batch with one image in front of each question."""
    texts, images = [], []
    for number, question in enumerate(questions):
        said = [{"type": "image"}, {"type": "text", "text": question}]
        turn = [{"role": "user", "content": said}]
        texts.append(processor.apply_chat_template(turn, add_generation_prompt=True))
        generator = torch.Generator().manual_seed(number)
        images.append(torch.randint(0, 255, (3, 32, 32), generator=generator, dtype=torch.uint8))
    return dict(processor(images=images, text=texts, padding=True, return_tensors="pt"))


def relevance(folder: Path, model: Any, pixels: Tensor, question: str) -> list[float]:
    """Of one image, by the whole CLIP."""
    clip, words = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    ids = words(question, verbose=False)["input_ids"]
    texts = []
    with torch.no_grad():
        seen = model.model.vision_tower(pixels[None], output_hidden_states=True)
        states = seen.hidden_states[model.config.vision_feature_layer][0, 1:]
        for start in range(0, len(ids), LONGEST):
            part = ids[start : start + LONGEST]
            part = part + [0] * (LONGEST - len(part))
            texts.append(clip.get_text_features(torch.tensor([part])).pooler_output[0])
        found = []
        for state in states:
            patch = clip.visual_projection(clip.vision_model.post_layernorm(state))
            close = [float(torch.cosine_similarity(patch, text, dim=0)) for text in texts]
            found.append(-sum(close) / len(close))
    return found


def test_relevance_is_what_clip_says(llava: tuple[Any, Any], folder: Path) -> None:
    """Of a short question, one that benchmarks add to, and one of several parts, in one batch."""
    model, processor = llava
    asked = ["what color is the box?", f"what is above?{SUFFIX}", LONG]
    shown = [asked[0], "what is above?", LONG.strip()]
    inputs = inputs_for(processor, *asked)
    method = CDPruner(keep=5, companion=folder)
    with prunus.prune(model, method, processor=processor) as run, torch.no_grad():
        model(**inputs)
    with torch.no_grad():
        tokens = model.model.get_image_features(inputs["pixel_values"]).pooler_output
    for row, question in enumerate(shown):
        expected = relevance(folder, model, inputs["pixel_values"][row], question)
        [scores], [kept] = run.trace[0].scores[row], run.trace[0].kept[row]
        assert torch.allclose(scores, torch.tensor(expected), atol=1e-5)
        assert kept.tolist() == literal(tokens[row], expected, 1.0, 5)


def test_a_batch_chooses_as_its_rows(llava: tuple[Any, Any], folder: Path) -> None:
    model, processor = llava
    asked = [LONG, "what is above?"]
    method = CDPruner(keep=5, companion=folder)
    with prunus.prune(model, method, processor=processor) as run, torch.no_grad():
        model(**inputs_for(processor, *asked))
        together = run.trace[0].kept
        inputs = inputs_for(processor, *asked)
        for row in range(2):
            there = inputs["attention_mask"][row].bool()
            ids = inputs["input_ids"][row : row + 1, there]
            model(input_ids=ids, pixel_values=inputs["pixel_values"][row : row + 1])
            assert torch.equal(run.trace[0].kept[0][0], together[row][0])


def test_it_is_loaded_once_and_without_a_second_tower(llava: tuple[Any, Any], folder: Path) -> None:
    method = CDPruner(companion=str(folder)).bind(family_of(llava[0]))
    assert isinstance(method.companion, Clip) and method.bind(family_of(llava[0])) is method
    names = {name for name, _ in method.companion.model.named_parameters()}
    assert not any("vision_model" in name for name in names)
    assert "text_projection.weight" in names and "in memory" in repr(method)


def test_what_the_text_tower_costs(llava: tuple[Any, Any], folder: Path) -> None:
    clip = load_clip(folder, family_of(llava[0]))
    with torch.no_grad():
        found = clip.embed(torch.randn(2, 16, 32), ["cat", "cat"])
    width, inner, tokens, layers = 24, 32, 5, 2  # start, c, a, t, end
    each = layers * (4 * width**2 + 2 * width * inner + 2 * tokens * width)
    assert found.macs == tokens * each + width * 20 + 2 * 16 * 32 * 20
    assert torch.equal(found.text[0], found.text[1]) and found.there.all()


def test_a_tower_that_was_trained_further_is_told(tmp_path: Path) -> None:
    model, _ = tiny_llava()
    place = saved_clip(tmp_path, model.model.vision_tower)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_clip(place, family_of(model))
        load_clip(place, family_of(model.bfloat16()))
    model = model.float()
    with torch.no_grad():
        next(model.model.vision_tower.parameters()).mul_(1.5)
    with pytest.warns(UserWarning, match="has other weights than the model's"):
        load_clip(place, family_of(model))


def test_what_does_not_fit_is_refused(llava: tuple[Any, Any], folder: Path, tmp_path: Path) -> None:
    model, processor = llava
    with pytest.raises(OSError, match=r"companion='nowhere/at/all': no model there"):
        prunus.prune(model, CDPruner(companion="nowhere/at/all"))
    wide = saved_clip(tmp_path / "wide", model.model.vision_tower, intermediate_size=40)
    with pytest.raises(ValueError, match="is not built as the model's"):
        prunus.prune(model, CDPruner(companion=wide))
    siglip = SiglipConfig(
        text_config={"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2},
        vision_config={"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2},
    )
    SiglipModel(siglip).save_pretrained(tmp_path / "siglip")
    with pytest.raises(ValueError, match="is a 'siglip' model: .*SigLIP has a space for whole"):
        prunus.prune(model, CDPruner(companion=tmp_path / "siglip"))
    with pytest.raises(ValueError, match="is not built as the model's"):
        prunus.prune(case_of("llava-siglip").model, CDPruner(companion=folder))
    with pytest.raises(ValueError, match="this family has no such rows"):
        prunus.prune(tiny_qwen()[0], CDPruner(companion=folder))
    with pytest.raises(ValueError, match="nobody said what the model's tokenizer is"):
        with prunus.prune(model, CDPruner(companion=folder)), torch.no_grad():
            model(**inputs_for(processor, "what is above?"))


def test_weights_that_are_missing_are_not_made_up(
    llava: tuple[Any, Any], folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OSError, match=r"1 weights are missing \(text_projection.weight"):
        load_clip(tmp_path, family_of(llava[0]))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(OSError, match="cannot be loaded"):
        load_clip(tmp_path, family_of(llava[0]))
