"""The encoder against literal attention, and what its words and its padding may do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from prunus.selector.encoder import Encoder
from tests.support.oracles.selector import encode
from tests.support.random_selectors import random_selector

IMAGE, WORDS = 9, 4


def made(seed: int = 0, **config: Any) -> Encoder:
    return random_selector(seed, **config).encoder.double()


def rows(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def there(count: int, batch: int = 1) -> Tensor:
    return torch.ones(batch, count, dtype=torch.bool)


def run(encoder: Encoder, image: Tensor, words: Tensor, gate: float = 1.0) -> Tensor:
    """One sample without padding."""
    with torch.no_grad():
        out: Tensor = encoder(image[None], there(len(image)), words[None], there(len(words)), gate)
    return out[0]


@pytest.mark.parametrize("gate", [1.0, 0.4])
@pytest.mark.parametrize(
    "config",
    [{}, {"causal_encoder": True}, {"visual_width": 8}, {"encoder_layers": 0}, {"heads": 4}],
    ids=["plain", "causal", "as wide", "no layers", "heads"],
)
def test_equals_the_literal_encoder(config: dict[str, Any], gate: float) -> None:
    encoder = made(**config)
    image = rows(IMAGE, config.get("visual_width", 12))
    words = rows(WORDS, 10, seed=1)
    with torch.no_grad():
        expected = encode(encoder, image, words, gate)
    assert float((run(encoder, image, words, gate) - expected).abs().max()) < 1e-10


def test_at_gate_zero_words_are_unknown() -> None:
    encoder, image = made(), rows(IMAGE, 12)
    some, others = rows(WORDS, 10, seed=1), rows(WORDS, 10, seed=2)
    assert torch.equal(run(encoder, image, some, 0.0), run(encoder, image, others, 0.0))
    for gate in (1e-2, 1.0):
        moved = run(encoder, image, some, gate) - run(encoder, image, others, gate)
        assert bool((moved.abs().amax(1) > 1e-6).all())  # every image token hears the question


def test_the_order_of_the_words_matters() -> None:
    encoder, image, words = made(), rows(IMAGE, 12), rows(WORDS, 10, seed=1)
    swapped = words[[1, 0, 2, 3]]
    assert float((run(encoder, image, words) - run(encoder, image, swapped)).abs().max()) > 1e-3


def test_the_order_of_image_tokens_is_in_their_features() -> None:
    encoder, image, words = made(), rows(IMAGE, 12), rows(WORDS, 10, seed=1)
    order = torch.randperm(IMAGE, generator=torch.Generator().manual_seed(0))
    moved = run(encoder, image[order], words)
    assert torch.allclose(moved, run(encoder, image, words)[order], atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_who_sees_whom(causal: bool) -> None:
    encoder = made(causal_encoder=causal)
    image, words = rows(IMAGE, 12), rows(WORDS, 10, seed=1)
    before = run(encoder, image, words)
    image[4] += 1
    changed = (run(encoder, image, words) - before).abs().amax(1) > 1e-9
    assert changed.tolist() == [not causal or token >= 4 for token in range(IMAGE)]


@pytest.mark.parametrize("causal", [False, True])
def test_a_padded_batch_is_its_samples(causal: bool) -> None:
    encoder = made(causal_encoder=causal)
    counts, lengths = (9, 5, 7), (4, 6, 1)
    image, words = rows(3, 9, 12, seed=3) * 50, rows(3, 6, 10, seed=4) * 50
    valid = torch.arange(9) < torch.tensor(counts)[:, None]
    asked = torch.arange(6) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        together = encoder(image, valid, words, asked)
    for row, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        alone = run(encoder, image[row, :count], words[row, :length])
        assert float((together[row, :count] - alone).abs().max()) < 1e-5


def test_no_question_at_all() -> None:
    """Of a prompt that ends with its image one word is there, and none of it counts."""
    encoder, image = made(), rows(IMAGE, 12)
    out = []
    for seed in (1, 2):
        with torch.no_grad():
            words, nothing = rows(1, 1, 10, seed=seed), torch.zeros(1, 1, dtype=torch.bool)
            out.append(encoder(image[None], there(IMAGE), words, nothing))
    assert torch.equal(*out) and bool(out[0].isfinite().all())
    with torch.no_grad():
        assert torch.allclose(out[0][0], encode(encoder, image, rows(0, 10)), atol=1e-10)
