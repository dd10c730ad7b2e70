"""The real loading path: real classes saved to disk and loaded by ``prunus.load``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoImageProcessor,
    BertConfig,
    BertModel,
    CLIPImageProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    pipeline,
)

import prunus
from prunus import CLSE
from tests.conftest import IMAGE, MODELS, PATCH, SIDE, TOKENS


def save(folder: Path, name: str) -> None:
    """A model of :data:`MODELS` with the processor that belongs to it."""
    words = {"<pad>": 0, "<s>": 1, "<unk>": 2, "</s>": 127, "<image>": IMAGE}
    for number, word in enumerate(
        ["USER:", "ASSISTANT:", "what", "is", "this", "?", "a", "b", "c"]
    ):
        words[word] = 3 + number
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(words),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
    )
    size = {"height": SIDE, "width": SIDE}
    siglip = name == "llava-siglip"
    images = (
        SiglipImageProcessor(size=size)
        if siglip
        else CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size)
    )
    full = name != "llava-clip"
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full" if full else "default",
        num_additional_image_tokens=0 if siglip else 1,
    )
    MODELS[name]().save_pretrained(folder)
    processor.save_pretrained(folder)


def _tokenizer(words: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer


def picture(seed: int, width: int = 50, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", sorted(name for name in MODELS if name.startswith("llava")))
def test_save_load_and_prune(tmp_path: Path, name: str) -> None:
    save(tmp_path, name)
    model, processor = prunus.load(tmp_path)
    assert not model.training
    inputs = processor(
        images=[picture(0), picture(1), picture(2)],
        text=["USER: <image> a <image> what is this ? ASSISTANT:", "USER: <image> b ASSISTANT:"],
        return_tensors="pt",
        padding=True,
    )
    with prunus.prune(model, CLSE(keep=5)) as run:
        answers = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert answers.shape[0] == 2
    assert [[len(image) for image in sample] for sample in run.trace[0].kept] == [[5, 5], [5]]
    assert run.report()["tokens"]["original"] == 1.5 * TOKENS
    # The same weights give the same answer through plain transformers.
    other = MODELS[name]()
    with prunus.prune(other, CLSE(keep=5)):
        expected = other.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(answers, expected)


def test_pipelines_and_tuples(tmp_path: Path) -> None:
    save(tmp_path, "llava-clip")
    model, processor = prunus.load(tmp_path)
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    text = "USER: <image> what is this ? ASSISTANT:"
    inputs = processor(images=[picture(0)], text=text, return_tensors="pt")
    with prunus.prune(model, "clse", keep=3) as run:
        answer = ask(images=picture(0), text=text, max_new_tokens=3, return_full_text=False)
        assert run.report()["tokens"]["kept"] == 3
        tokens = model.generate(**inputs, max_new_tokens=3)[0, inputs["input_ids"].shape[1] :]
        assert processor.decode(tokens, skip_special_tokens=True) == answer[0]["generated_text"]
        logits = model(**inputs, return_dict=False)[0]
        assert torch.equal(logits, model(**inputs).logits)


def test_dtype_device_and_device_map(tmp_path: Path) -> None:
    save(tmp_path, "llava-clip")
    model, _ = prunus.load(tmp_path, dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16
    mapped, _ = prunus.load(str(tmp_path), device_map={"": "cpu"})
    assert mapped.dtype == torch.float32
    with pytest.raises(ValueError, match="either device or device_map"):
        prunus.load(tmp_path, device="cpu", device_map="auto")
    with pytest.raises(ValueError, match="dtype='int8'"):
        prunus.load(tmp_path, dtype="int8")


def test_two_placeholders_and_one_image(tmp_path: Path) -> None:
    save(tmp_path, "llava-clip")
    model, processor = prunus.load(tmp_path)
    inputs: dict[str, Any] = processor(
        images=[picture(0)], text="USER: <image> ASSISTANT:", return_tensors="pt"
    )
    ids = inputs["input_ids"]
    doubled = torch.cat([ids, ids], dim=1)
    with prunus.prune(model, "clse", keep=3):
        with pytest.raises(ValueError, match="match|placeholder"):
            model.generate(
                input_ids=doubled,
                attention_mask=torch.ones_like(doubled),
                pixel_values=inputs["pixel_values"],
                max_new_tokens=2,
            )


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model folder at .*tiny-llava"):
        prunus.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no model 'tiny-lava' found.*tiny-llava"):
        prunus.load("tiny-lava")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no model"):
        prunus.load(tmp_path / "empty")
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="'bert' model.*llava"):
        prunus.load(tmp_path / "bert")


def test_the_processor_on_disk_is_the_real_one(tmp_path: Path) -> None:
    save(tmp_path, "llava-clip")
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), CLIPImageProcessor)
