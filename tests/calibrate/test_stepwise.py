"""A constant on STOP's logit makes the mean come out, in the method as in the calibration."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from prunus import Stepwise, prune
from prunus.calibrate.stepwise import Encoded, encode_prompts, mean_budget
from prunus.families import family_of
from prunus.selector.config import SelectorConfig
from prunus.selector.selector import Selector
from prunus.selector.store import Card, save_selector
from tests.support.chat_models import tiny_llava, tiny_qwen

SIZE, MOST, LEAST = 24, 12, 2


def make_selector(visual: int = 16, text: int = 16, **others: Any) -> Selector:
    torch.manual_seed(4)
    shape: dict[str, Any] = {"width": 16, "heads": 2, "min_steps": LEAST, **others}
    selector = Selector(SelectorConfig(visual, text, **shape)).eval().requires_grad_(False)
    for weight in selector.parameters():  # wide, so that choices differ
        if weight.ndim > 1:
            weight.mul_(3)
    return selector


def memories(groups: int = 2) -> list[Encoded]:
    generator = torch.Generator().manual_seed(0)
    return [
        Encoded(2 * torch.randn(6, SIZE, 16, generator=generator), [MOST] * 6)
        for _ in range(groups)
    ]


def counts(selector: Selector, encoded: list[Encoded], bias: float) -> list[int]:
    """Image by image."""
    found = []
    for one in encoded:
        for row in one.rows:
            there = torch.ones(1, SIZE, dtype=torch.bool)
            found.append(int(selector.pick(row[None], there, [MOST], bias=bias).counts))
    return found


@pytest.mark.parametrize("wanted", [0.1, 0.2, 0.3, 0.49])
def test_the_mean_comes_out(wanted: float) -> None:
    selector, encoded = make_selector(), memories()
    trials: list[int] = []
    found = mean_budget(selector, encoded, wanted, lambda: trials.append(1))
    own = counts(selector, encoded, found.bias)
    assert found.wanted == wanted and 2 < len(trials) < 30
    assert found.kept == pytest.approx(sum(own) / len(own))
    assert found.share == pytest.approx(sum(own) / len(own) / SIZE)
    assert (found.least, found.largest) == (min(own), max(own))
    # 12 images: nothing finer than a few tokens of all of them together.
    assert found.share == pytest.approx(wanted, abs=4 / (12 * SIZE))


def test_a_larger_constant_keeps_fewer() -> None:
    selector, encoded = make_selector(), memories()
    means = [sum(counts(selector, encoded, bias)) for bias in (-100, *range(3, 9), 100)]
    assert all(before >= after for before, after in pairwise(means))
    assert means[0] == 12 * MOST and means[-1] == 12 * LEAST
    assert len(set(means)) > 3


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (0.02, "0.02 of the tokens cannot be met.* keeps at least 0.08333"),
        (0.6, "0.6 of the tokens cannot be met.* keeps at most 0.5"),
        (0.0, "share between 0 and 1"),
        (1.0, "share between 0 and 1"),
    ],
)
def test_impossible_means(wanted: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mean_budget(make_selector(), memories(), wanted)


def test_nothing_to_calibrate() -> None:
    with pytest.raises(ValueError, match="no prompts with images"):
        mean_budget(make_selector(), [], 0.1)
    selector = make_selector(kind="one-shot")
    with pytest.raises(ValueError, match="one-shot selector cannot stop"):
        encode_prompts(None, [], selector, Card("", [], None))


@pytest.mark.parametrize("make", [tiny_llava, tiny_qwen])
def test_the_method_keeps_what_was_calibrated(make: Any, tmp_path: Path) -> None:
    model, processor = make()
    family = family_of(model)
    selector = make_selector(family.feature_width, family.text_width, min_steps=1)
    card = Card.of("tiny", family, processor)
    prompts = []
    for words in ("what color is the box?", "how many are there?", "two?"):
        content = [{"type": "image"}, {"type": "text", "text": words}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        pictures = [
            Image.linear_gradient("L").rotate(turn).resize((32, 32)).convert("RGB")
            for turn in (0, 90, 180)
        ]
        prompts += [processor(text=text, images=[one], return_tensors="pt") for one in pictures]
    steps: list[int] = []
    encoded = encode_prompts(model, prompts, selector, card, steps.append)
    assert steps == [1] * 9 and len(encoded) == 9
    found = mean_budget(selector, encoded, 0.25)
    assert found.share == pytest.approx(0.25, abs=0.04)
    save_selector(tmp_path, selector, replace(card, biases={"0.25": found.bias}))
    shares = []
    with prune(model, Stepwise(selector=tmp_path, keep=0.25, mode="mean")) as run:
        for inputs in prompts:
            model(**inputs)
            tokens = run.report()["tokens"]
            shares.append(tokens["kept"] / tokens["original"])
    assert sum(shares) / len(shares) == pytest.approx(found.share)
    assert len(set(shares)) > 1, "single images differ"
