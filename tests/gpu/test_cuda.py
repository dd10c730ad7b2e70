"""On a GPU: both built-in models, and FlashAttention where it is installed. `make test-gpu`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.utils import import_utils

import prunus
from prunus.bench.build import build, prompt
from prunus.bench.shapes import shape_of
from prunus.pruners.fixed import Fixed

HERE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(HERE == "cpu", reason="needs a GPU")

FLASH = [
    pytest.param(
        f"flash_attention_{version}",
        marks=pytest.mark.skipif(
            not getattr(import_utils, f"is_flash_attn_{version}_available", lambda: False)(),
            reason=f"FlashAttention {version} is not installed",
        ),
    )
    for version in (2, 3, 4)
]
METHODS = [
    prunus.CLSE(keep=64),
    prunus.VisiPruner(),
    prunus.EvoPrune(keep=300),
    prunus.methods()["fastv"](keep=64),
    prunus.methods()["sparsevlm"](keep=80),
    prunus.methods()["visionzip"](keep=64),
    prunus.methods()["dart"](keep=64),
]


@contextmanager
def quiet() -> Iterator[None]:
    """Methods that find nothing to do say so; here that is no matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["tiny-llava", "tiny-qwen"])
def test_every_method_is_right_on_the_gpu(name: str, attention: str) -> None:
    model, processor = prunus.load(name, device=HERE)
    model.set_attn_implementation(attention)
    with quiet():
        report = prunus.check(model, processor)
    assert report.ok, str(report)


def small(attention: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """LLaVA-1.5's classes with heads of 64 and 128, a quarter of its width and depth."""
    return build(
        shape_of("llava-1.5-7b"),
        scale=1 / 4,
        dtype=dtype,
        device=torch.device(HERE),
        attention=attention,
    )


def padded(inputs: dict[str, Tensor], by: int) -> dict[str, Tensor]:
    """The prompt behind ``by`` tokens of padding."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    zeros = torch.zeros_like(ids[:, :by])
    return {
        **inputs,
        "input_ids": torch.cat([zeros, ids], 1),
        "attention_mask": torch.cat([zeros, mask], 1),
    }


@torch.inference_mode()
def logits(model: Any, method: Any, inputs: dict[str, Tensor], after: Tensor) -> Tensor:
    """Last logits of the prompt and of each token of ``after [steps]``, ``[B, 1 + steps, V]``."""
    rows = []
    mask = inputs["attention_mask"]
    with prunus.prune(model, method):
        places = (mask.cumsum(1) - 1).clamp(min=0)
        out = model(**inputs, position_ids=places, logits_to_keep=1)
        rows.append(out.logits)
        for token in after.tolist():
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            out = model(
                input_ids=torch.full_like(mask[:, :1], token),
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1)[:, -1:],
                past_key_values=out.past_key_values,
            )
            rows.append(out.logits)
    return torch.cat(rows, 1).float()


def off(ours: Tensor, right: Tensor) -> float:
    return float((ours - right).norm() / right.norm())


@pytest.mark.parametrize("attention", FLASH)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_flash_attention_gives_what_exact_attention_gives(method: Any, attention: str) -> None:
    """The same tokens in bf16: as near to float32 as SDPA in bf16 is, prompt and decoding, alone
    and behind padding."""
    exact, sdpa = small("sdpa", torch.float32), small("sdpa")
    sdpa.load_state_dict(exact.state_dict())
    flash = small(attention)
    flash.load_state_dict(exact.state_dict())
    after = torch.arange(200, 208)
    single = prompt(sdpa, shape_of("llava-1.5-7b"), batch=1, words=40)
    with quiet():
        with prunus.prune(sdpa, method) as run, torch.inference_mode():
            sdpa(**single)
            told = Fixed.replay(run.trace)
        wide = {k: v.float() if v.is_floating_point() else v for k, v in single.items()}
        right = logits(exact, told, wide, after)
        usual = off(logits(sdpa, told, single, after), right)
        found = off(logits(flash, told, single, after), right)
        behind = off(logits(flash, told, padded(single, 9), after), right)
    print(f"{method.name}: bf16 SDPA {usual:.2e}, {attention} {found:.2e}, padded {behind:.2e}")
    assert found < 2 * usual
    assert behind < 3 * usual  # other rounding: padding moves rows to other places


@pytest.mark.parametrize("attention", FLASH)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_flash_attention_lets_a_method_see_the_same(method: Any, attention: str) -> None:
    """What a method picks by itself under FlashAttention is nearly what it picks under SDPA: bf16
    decides ties otherwise."""
    sdpa = small("sdpa")
    flash = small(attention)
    flash.load_state_dict(sdpa.state_dict())
    inputs = prompt(sdpa, shape_of("llava-1.5-7b"), batch=2, words=40)
    picked = []
    with quiet(), torch.inference_mode():
        for model in (sdpa, flash):
            with prunus.prune(model, method) as run:
                model(**inputs)
                picked.append([set(one[0].tolist()) for one in run.trace[-1].kept])
    for ours, theirs in zip(*picked, strict=True):
        assert len(ours & theirs) >= 0.9 * max(len(ours), len(theirs))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_run_can_be_repeated(method: Any) -> None:
    """In bf16, where every sum in another order would decide ties otherwise."""
    model = small("sdpa")
    inputs = prompt(model, shape_of("llava-1.5-7b"), batch=4, words=40)
    with quiet(), torch.inference_mode():
        runs = []
        for _ in range(6):
            with prunus.prune(model, method) as run:
                out = model(**inputs, logits_to_keep=1)
            runs.append((out.logits, run.trace[-1].kept))
    for logits_again, kept in runs[1:]:
        assert torch.equal(logits_again, runs[0][0])
        for ours, theirs in zip(kept, runs[0][1], strict=True):
            assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("attention", FLASH)
def test_a_check_under_flash_attention(attention: str) -> None:
    model = small(attention)
    prompts = [prompt(model, shape_of("llava-1.5-7b"), batch=1, words=n) for n in (30, 41)]
    with quiet():
        report = prunus.check(model, prompts=prompts)
    print(report)
    assert report.ok, str(report)
