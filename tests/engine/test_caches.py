"""Which caches a pruned model may have: every other one is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.cache_utils import Cache, QuantizedLayer
from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

import prunus
from prunus import PrunusError, Uniform
from tests.support.models import Case

SHORT: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}


class Rounded(QuantizedLayer):
    """A quantised layer without a package that quantises."""

    def __init__(self) -> None:
        super().__init__(nbits=4, axis_key=0, axis_value=0, q_group_size=64, residual_length=2)

    def _quantize(self, tensor: Tensor, axis: int) -> Tensor:
        return tensor.half()

    def _dequantize(self, q_tensor: Tensor) -> Tensor:
        return q_tensor.float()


def static(config: Any) -> Cache:
    return StaticCache(config=config, max_cache_len=64)


def quantised(config: Any) -> Cache:
    return Cache(layers=[Rounded() for _ in range(config.num_hidden_layers)])


def offloaded(config: Any) -> Cache:
    cache = DynamicCache(config=config)
    cache.offloading = True
    return cache


def for_encoders(config: Any) -> Cache:
    return EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))


def unknown_layers(config: Any) -> Cache:
    cache = DynamicCache(config=config)
    cache.layers[2] = Rounded()
    return cache


@pytest.fixture
def ran(llava: Case) -> list[str]:
    """Names of modules that ran."""
    found = list[str]()
    for name in ("vision_tower", "multi_modal_projector", "language_model.layers.0"):
        module = llava.model.model.get_submodule(name)
        module.register_forward_pre_hook(lambda *_, name=name: found.append(name))
    return found


@pytest.mark.parametrize("make", [static, quantised, offloaded, for_encoders, unknown_layers])
def test_another_cache_is_refused_before_anything_runs(
    llava: Case, ran: list[str], make: Callable[[Any], Cache]
) -> None:
    inputs, model = llava.prompts.rows(1), llava.model
    words = r"DynamicCache only, not .*pass DynamicCache\(\)"
    for call in (model, lambda **given: model.generate(**given, **SHORT)):
        cache = make(model.config.get_text_config())
        with prunus.prune(model, Uniform(keep=5)) as run:
            with pytest.raises(PrunusError, match=words):
                call(**inputs, past_key_values=cache)
            assert not ran and not run.prompts
        assert cache.get_seq_length() == 0


@pytest.mark.parametrize(
    "kind", sorted({*ALL_CACHE_IMPLEMENTATIONS, "paged"} - {"dynamic", "hybrid"})
)
def test_another_kind_of_cache_is_refused_before_anything_runs(
    llava: Case, ran: list[str], kind: str
) -> None:
    with prunus.prune(llava.model, Uniform(keep=5)) as run:
        with pytest.raises(PrunusError, match=f"cache_implementation='{kind}'.*leave it out"):
            llava.model.generate(**llava.prompts.rows(1), cache_implementation=kind, **SHORT)
        assert not ran and not run.prompts


@pytest.mark.parametrize(
    "options",
    # transformers takes "hybrid" for nothing said.
    [{"cache_implementation": "dynamic"}, {"cache_implementation": "hybrid"}, {"cache": True}],
)
def test_a_dynamic_cache_however_it_comes(llava: Case, options: dict[str, Any]) -> None:
    inputs = llava.prompts.rows(1)
    with prunus.prune(llava.model, Uniform(keep=5)), torch.no_grad():
        expected = llava.model.generate(**inputs, **SHORT)
        if "cache" in options:
            options = {"past_key_values": DynamicCache(config=llava.model.config)}
        assert torch.equal(llava.model.generate(**inputs, **options, **SHORT), expected)
