"""The real processor and loading path of Qwen2.5-VL, with and without torchvision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLVideoProcessor,
    pipeline,
)

import prunus
from prunus import CLSE
from prunus.grid import Grid
from tests.support.llava import DEPTH
from tests.support.oracles.masked import continued, masked_logits, visibility
from tests.support.qwen import QwenPrompts, qwen
from tests.support.qwen_processor import save_qwen


def picture(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen")
    save_qwen(path)
    return path


def ask(processor: Any, *kinds: str) -> str:
    content = [*({"type": kind} for kind in kinds), {"type": "text", "text": "what is this ?"}]
    text: str = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return text


def test_a_batch_of_images_and_a_video(folder: Path) -> None:
    model, processor = prunus.load(folder)
    assert type(model) is Qwen2_5_VLForConditionalGeneration and not model.training
    assert type(processor) is Qwen2_5_VLProcessor
    assert type(processor.video_processor) is Qwen2VLVideoProcessor
    inputs = dict(
        processor(
            images=[picture(0), picture(1, 40, 80), picture(2, 200, 150)],
            videos=[[picture(seed, 50, 40) for seed in range(5)]],
            text=[ask(processor, "image", "video", "image"), ask(processor, "image")],
            return_tensors="pt",
            padding=True,
        )
    )
    assert int((inputs["attention_mask"] == 0).sum()) > 0
    steps = 6
    with prunus.prune(model, CLSE(keep=7, variant="hybrid")) as run:
        out = model.generate(
            **inputs,
            max_new_tokens=steps,
            min_new_tokens=steps,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    cell = (8, 8)
    grids = run.trace[0].grid
    assert grids[0] == [Grid(1, 5, 8, cell), Grid(3, 5, 6, cell), Grid(1, 10, 5, cell)]
    assert [len(kept) for kept in run.trace[0].kept[0]] == [7, 7, 7]
    assert len(grids[1]) == 1 and len(run.trace[0].kept[1][0]) == 7
    full = continued(inputs, out.sequences)
    length = inputs["input_ids"].shape[1]
    spots = QwenPrompts().spots(inputs["input_ids"])
    visible = visibility(run.trace, spots, full["attention_mask"], DEPTH, length)
    expected = masked_logits(model, full, visible)[:, length - 1 : -1]
    assert (torch.stack(out.logits, dim=1) - expected).abs().max() < 1e-4
    # The same weights give the same answer through plain transformers.
    other = qwen()
    with prunus.prune(other, CLSE(keep=7, variant="hybrid")):
        again = other.generate(**inputs, max_new_tokens=steps, min_new_tokens=steps)
    assert torch.equal(again, out.sequences)


def test_the_pipeline_of_transformers(folder: Path) -> None:
    model, processor = prunus.load(folder)
    talk = pipeline("image-text-to-text", model=model, processor=processor)
    content = [{"type": "image", "image": picture(0)}, {"type": "text", "text": "what is this ?"}]
    with prunus.prune(model, "clse", keep=6) as run:
        answer = talk(text=[{"role": "user", "content": content}], max_new_tokens=3)
    assert run.report()["tokens"]["kept"] == 6 and run.report()["tokens"]["original"] == 40
    assert answer[0]["generated_text"]


WITHOUT_TORCHVISION = """
import sys
sys.modules["torchvision"] = None  # what a missing library looks like to importlib
import numpy as np
from PIL import Image
import prunus

def picture(seed, width=60, height=40):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)

def ask(processor, *kinds):
    content = [*({"type": kind} for kind in kinds), {"type": "text", "text": "what ?"}]
    return processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)

model, processor = prunus.load(sys.argv[1])
assert type(processor).__name__ == "Qwen2_5_VLProcessor" in str(processor)
inputs = processor(
    images=[picture(0), picture(1, 40, 80)], text=ask(processor, "image", "image"),
    return_tensors="pt",
)
with prunus.prune(model, "clse", keep=6) as run:
    model.generate(**inputs, max_new_tokens=2)
assert run.report()["tokens"]["kept"] == 12
for refused in (
    lambda: processor(videos=[[picture(0)] * 4], text=ask(processor, "video")),
    lambda: processor.save_pretrained(sys.argv[1]),
):
    try:
        refused()
    except ValueError as error:
        print(error)
from prunus.cli import main
main(["run", "--model", sys.argv[1], "--prompt", "what ?", "--video", sys.argv[2]])
"""


def test_without_torchvision_images_work_and_videos_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    picture(0).save(tmp_path / "frame.png")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCHVISION, str(folder), str(tmp_path / "frame.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("-c fits.txt 'prunus[video]'" in line for line in lines)
    assert done.stderr.splitlines()[-1].startswith("error: videos need torchvision")
    assert "Traceback" not in done.stderr
