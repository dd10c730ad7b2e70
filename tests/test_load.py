"""The real loading path: real classes saved to disk and loaded by ``prunus.load``."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    BertConfig,
    BertModel,
    CLIPImageProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    pipeline,
)

import prunus
from prunus import CLSE, PrunusError, PrunusFileError
from prunus.builtin import BUILTIN
from prunus.train.data import Batch
from tests.support.llava import IMAGE, PATCH, SIDE, TOKENS, llava_clip
from tests.support.models import MODELS

WEIGHTS = "model.safetensors"


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
    with pytest.raises(ValueError, match="unknown model 'tiny-lava': did you mean 'tiny-llava'"):
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


# -- incomplete and broken folders -------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    save(folder, "llava-clip")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def sharded(folder: Path) -> list[Path]:
    """The weights in several files."""
    (folder / WEIGHTS).unlink()
    llava_clip().save_pretrained(folder, max_shard_size="100KB")
    return sorted(folder.glob("model-*.safetensors"))


def broken(folder: Path, *words: str) -> None:
    with pytest.raises(PrunusFileError) as caught:
        prunus.load(folder)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message
    for word in words:
        assert word in message


QUERY = "language_model.model.layers.0.self_attn.q_proj.weight"
SEEN = "model.language_model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop(QUERY), ["1 missing", SEEN]),
        (lambda w: w.pop("language_model.lm_head.weight"), ["1 missing", "lm_head.weight"]),
        (lambda w: w.update(surplus=torch.zeros(3)), ["1 unexpected", "surplus"]),
        (lambda w: w.update({f"{QUERY}2": w.pop(QUERY)}), ["1 missing", "1 unexpected"]),
        (
            lambda w: w.update({QUERY: w[QUERY][:5].contiguous()}),
            ["1 of another shape", f"{SEEN} [5, 64] instead of [64, 64]"],
        ),
        (lambda w: [w.pop(name) for name in list(w)[:40]], ["40 missing", ", ..."]),
        (lambda w: w.clear(), ["missing"]),
    ],
)
def test_weights_that_are_not_those_of_the_configuration(
    folder: Path, change: Any, words: list[str]
) -> None:
    weights = load_file(folder / WEIGHTS)
    assert QUERY in weights
    change(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    broken(folder, "are not those of its configuration", *words)


@pytest.mark.parametrize("layers", [2, 9])
def test_a_configuration_of_another_depth(folder: Path, layers: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config))
    broken(folder, "27 unexpected" if layers == 2 else "36 missing")


def test_shapes_may_differ_where_that_is_asked_for(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights[QUERY] = weights[QUERY][:5].contiguous()
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    prunus.load(folder, ignore_mismatched_sizes=True)


def test_what_transformers_leaves_out_by_rule_is_not_missing(tmp_path: Path) -> None:
    save(tmp_path, "llava-clip")
    model = llava_clip()
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    assert "language_model.lm_head.weight" not in weights
    # Older checkpoints hold buffers that are computed today.
    weights["language_model.model.rotary_emb.inv_freq"] = torch.ones(4)
    weights["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)
    save_file(weights, tmp_path / WEIGHTS, {"format": "pt"})
    loaded, _ = prunus.load(tmp_path)
    assert loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight


def test_weights_in_several_files(folder: Path) -> None:
    shards = sharded(folder)
    assert len(shards) > 3
    prunus.load(folder)
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:-8])
    broken(folder, "SafetensorError")
    shards[1].unlink()
    broken(folder, "model-00002-of-")
    shards[1].write_bytes(content)
    listed = json.loads((folder / f"{WEIGHTS}.index.json").read_text())
    gone = {name for name, file in listed["weight_map"].items() if file == shards[1].name}
    listed["weight_map"] = {n: file for n, file in listed["weight_map"].items() if n not in gone}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(listed))
    broken(folder, f"{len(gone)} missing")
    for content in (b"{", b"[]", b"\xff"):
        (folder / f"{WEIGHTS}.index.json").write_bytes(content)
        broken(folder, "cannot be loaded")


@pytest.mark.parametrize("keep", [0, 5, 5000, -10])
def test_a_file_of_weights_that_is_cut_off(folder: Path, keep: int) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:keep])
    broken(folder, "cannot be loaded", "SafetensorError")
    (folder / WEIGHTS).unlink()
    broken(folder, "no file named model.safetensors")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null", b""])
@pytest.mark.parametrize(
    "name", ["config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_broken_files_beside_the_weights(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(PrunusError) as caught:
        prunus.load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("text_config.hidden_size", "wide"),
        ("text_config.hidden_size", 65),
        ("text_config.num_attention_heads", 0),
        ("text_config", 5),
        ("vision_config.model_type", "eye"),
        ("model_type", ["llava"]),
        ("model_type", None),
    ],
)
def test_configurations_that_make_no_model(folder: Path, path: str, value: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    *owners, name = path.split(".")
    owner = config
    for one in owners:
        owner = owner[one]
    owner[name] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(PrunusError) as caught:
        prunus.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [None, 3, "", b"tiny-llava", ["tiny-llava"], "x" * 5000, "a\0b", "\ud800", "~nobody/x"]
)
def test_names_that_are_none(name: Any) -> None:
    with pytest.raises(PrunusError):
        prunus.load(name)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": 5},
        {"dtype": None},
        {"dtype": "float"[:2]},
        {"dtype": torch.int8},
        {"dtype": ["float32"]},
        {"device": "toaster"},
        {"device": 1.5},
        {"output_loading_info": True},
        {"device_map": 3.5},
    ],
    ids=str,
)
def test_options_that_are_none(whole: Path, options: dict[str, Any]) -> None:
    with pytest.raises(PrunusError):
        prunus.load(whole, **options)


# -- dtype -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, "float32", "auto"])
@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_built_in_models_are_cast_as_transformers_casts(name: str, dtype: Any) -> None:
    model, _ = prunus.load(name, dtype=dtype)
    place = str(files("prunus.builtin") / "weights" / name)
    wanted = AutoModelForImageTextToText.from_pretrained(
        place, dtype="float32" if dtype == "auto" else dtype
    )
    mine = [*model.named_parameters(), *model.named_buffers()]
    theirs = [*wanted.named_parameters(), *wanted.named_buffers()]
    for (one, value), (other, expected) in zip(mine, theirs, strict=True):
        assert one == other and value.dtype == expected.dtype and torch.equal(value, expected)
    frequencies = [value for one, value in model.named_buffers() if one.endswith("inv_freq")]
    assert frequencies and {value.dtype for value in frequencies} == {torch.float32}
    assert model.dtype == (torch.float32 if isinstance(dtype, str) else dtype)


def test_half_precision_keeps_the_times_of_frames() -> None:
    ids = torch.zeros(1, 2, dtype=torch.int64)
    inputs = {"pixel_values_videos": torch.ones(1), "second_per_grid_ts": torch.tensor([0.7])}
    batch = Batch(inputs, ids, ids.bool()).to("cpu", torch.bfloat16)
    assert batch.inputs["pixel_values_videos"].dtype == torch.bfloat16
    assert torch.equal(batch.inputs["second_per_grid_ts"], torch.tensor([0.7]))


def test_the_processor_on_disk_is_the_real_one(tmp_path: Path) -> None:
    save(tmp_path, "llava-clip")
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), CLIPImageProcessor)
