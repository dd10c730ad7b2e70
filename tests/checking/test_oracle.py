"""The check's own oracle, without the engine: what is hidden has no influence, all else has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    Gemma2Config,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
)

from prunus.checking.answer import generate
from prunus.checking.hidden import Hidden, NoOracle
from prunus.checking.oracle import hide, masked
from prunus.checking.probe import Probe, from_rows
from prunus.families import family_of
from prunus.grid import Grid
from prunus.method import Edit
from tests.checking.prompts import prompts_of
from tests.support.llava import IMAGE, PAD, PATCH, SIDE, TOKENS, Prompts, llava_clip
from tests.support.models import Case
from tests.support.oracles import masked as reference
from tests.support.oracles.edited import edited

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "initializer_range": 0.15,
    "pad_token_id": PAD,
    "eos_token_id": 127,
}


def llava_of(text: Any) -> Any:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=32,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, image_seq_length=TOKENS
    )
    return LlavaForConditionalGeneration(config).eval()


DECODERS = {
    "llama": lambda: llava_clip(4),
    "mistral-window": lambda: llava_of(MistralConfig(**TEXT, head_dim=16, sliding_window=7)),
    "gemma2": lambda: llava_of(
        Gemma2Config(**TEXT, head_dim=16, sliding_window=7, query_pre_attn_scalar=16)
    ),
}


@pytest.fixture(params=sorted(DECODERS))
def decoder(request: pytest.FixtureRequest) -> Case:
    return Case(request.param, DECODERS[request.param](), Prompts(0))


@pytest.fixture(params=["eager", "sdpa"])
def backend(request: pytest.FixtureRequest, decoder: Case) -> str:
    name: str = request.param
    if name == "sdpa" and not decoder.model.model.language_model._supports_sdpa:
        pytest.skip("this decoder has eager attention only")
    decoder.model.set_attn_implementation(name)
    return name


def hidden_of(probe: Probe, depth: int, cut: int, tokens: list[int], later: bool) -> Hidden:
    """``tokens`` of every image are gone from layer ``cut`` on; before it only for what follows the
    prompt, if ``later``."""
    gone, visual = torch.zeros_like(probe.valid), torch.zeros_like(probe.valid)
    for row, images in enumerate(probe.spots):
        for spot in images:
            gone[row, spot[tokens]] = True
            visual[row, spot] = True
    none = torch.zeros_like(gone)
    prompt = [gone if layer >= cut else none for layer in range(depth)]
    behind = [gone if layer >= cut or later else none for layer in range(depth)]
    return Hidden(probe.valid, visual, prompt, behind, {})


def logits_of(model: Any, probe: Probe) -> tuple[Tensor, Tensor]:
    """Of the prompt, and of the steps of an answer."""
    with torch.no_grad():
        return model(**probe.batch).logits, generate(model, probe).logits


def test_with_nothing_hidden_it_is_the_model(decoder: Case, backend: str) -> None:
    family = family_of(decoder.model)
    probe = from_rows(family, prompts_of(decoder), 9)
    nothing = Hidden.of([], probe.spots, probe.valid, 4)
    expected = logits_of(decoder.model, probe)
    with torch.no_grad():
        with masked(family, nothing):
            prompt = decoder.model(**probe.batch).logits
        with masked(family, nothing):
            answer = generate(decoder.model, probe).logits
    assert (prompt - expected[0])[probe.valid].abs().max() < 1e-5
    assert (answer - expected[1]).abs().max() < 1e-5


@pytest.mark.parametrize(("cut", "later"), [(0, False), (2, False), (2, True)])
def test_what_is_hidden_has_no_influence(
    decoder: Case, backend: str, cut: int, later: bool
) -> None:
    """States of hidden tokens may be anything from their layer on; others may not."""
    model, family = decoder.model, family_of(decoder.model)
    probe = from_rows(family, prompts_of(decoder), 9)
    hidden = hidden_of(probe, 4, cut, [2, 3, 9, 15], later)

    def disturbed(tokens: list[int], layer: int) -> tuple[Tensor, Tensor]:
        def hook(module: Any, args: Any, kwargs: Any) -> Any:
            states = (args[0] if args else kwargs["hidden_states"]).clone()
            if states.shape[1] == probe.valid.shape[1]:
                for row, images in enumerate(probe.spots):
                    for spot in images:
                        states[row, spot[tokens]] += 3.0
            return (
                ((states, *args[1:]), kwargs)
                if args
                else (args, {**kwargs, "hidden_states": states})
            )

        handle = family.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)
        with torch.no_grad():
            with masked(family, hidden):
                prompt = model(**probe.batch).logits
            with masked(family, hidden):
                answer = generate(model, probe).logits
        handle.remove()
        return prompt[hidden.alive], answer

    calm, wild = disturbed([], cut), disturbed([2, 3, 9, 15], cut)
    assert (calm[0] - wild[0]).abs().max() < 1e-5 and (calm[1] - wild[1]).abs().max() < 1e-5
    assert torch.isfinite(calm[0]).all() and torch.isfinite(calm[1]).all()
    seen = disturbed([14], cut)
    assert (calm[0] - seen[0]).abs().max() > 1e-3
    if cut:  # in front of it, the prompt sees everything
        before = disturbed([3], cut - 1)
        assert (calm[0] - before[0]).abs().max() > 1e-3


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_it_agrees_with_the_oracle_of_the_tests(case: Case, implementation: str) -> None:
    case.model.set_attn_implementation(implementation)
    family = family_of(case.model)
    probe = from_rows(family, prompts_of(case, 2, 1), 2)
    hidden = hidden_of(probe, 5, 2, [1, 3], False)
    visible = []
    for layer in range(5):
        causal = torch.ones(probe.valid.shape[1], probe.valid.shape[1]).tril().bool()
        keys = probe.valid & ~hidden.prompt[layer]
        visible.append((causal & keys[:, None]) | torch.eye(len(causal)).bool())
    expected = reference.masked_logits(case.model, probe.batch, visible)
    with torch.no_grad(), masked(family, hidden):
        found = case.model(**probe.batch).logits
    assert (expected - found)[hidden.alive].abs().max() < 1e-5


@pytest.mark.parametrize(
    "edit",
    [
        Edit("cut"),
        Edit("half", "cut"),
        Edit("keep", "cut"),
        Edit("merge", "cut", sink=0),
        Edit("merge", sink=-1),
        Edit("merge", sink=5),
        Edit("cut", "cut", renormalise=True),
        Edit("half", renormalise=True),
        Edit("merge", "cut", renormalise=True),
    ],
)
def test_edits_agree_with_the_oracle_of_the_tests(case: Case, edit: Edit) -> None:
    """Two images in a row, so that a sink may stand behind text that looks at the first."""
    family = family_of(case.model)
    probe = from_rows(family, prompts_of(case, 2, 1), 2)
    spots = [[spot.tolist() for spot in images] for images in probe.spots]
    every = [[torch.arange(len(spot)) for spot in images] for images in probe.spots]
    entry: Any = SimpleNamespace(
        place="attention",
        edits={1: edit, 3: edit},
        kept=every,
        grid=[[Grid(1, 1, len(spot), (1, 1)) for spot in images] for images in probe.spots],
        layer=1,
        forgets=(),
        trim_cache=False,
    )
    hidden = Hidden.of([entry], probe.spots, probe.valid, 5)
    last = probe.valid.shape[1] - 1
    with torch.no_grad():
        plain = case.model(**probe.batch).logits
        with masked(family, hidden):
            found = case.model(**probe.batch).logits
    visible = reference.visibility([entry], spots, probe.valid, 5, last + 1)
    with edited(case.model, [entry], spots, last):
        expected = reference.masked_logits(case.model, probe.batch, visible)
    assert (expected - found)[probe.valid].abs().max() < 1e-5
    assert (plain - found)[probe.valid].abs().max() > 1e-3


def test_hiding_in_a_window_and_in_a_cache_that_is_too_long() -> None:
    """A window holds the last keys, a static cache has empty slots at its end."""
    seen = torch.tensor([[True, False, True, True, False, True]])
    window = torch.ones(1, 1, 1, 4, dtype=torch.bool)
    assert hide(window, seen)[0, 0, 0].tolist() == [True, True, False, True]
    longer = torch.tensor([[[[True] * 6 + [False] * 2]]])
    kept = hide(longer, seen)[0, 0, 0].tolist()
    assert kept == [True, False, True, True, False, True, False, False]
    added = hide(torch.zeros(1, 1, 1, 6), seen)[0, 0, 0]
    assert (added == torch.finfo(torch.float32).min).tolist() == (~seen[0]).tolist()
    itself = torch.tensor([[True, False]])
    assert hide(torch.ones(1, 1, 2, 2).tril().bool(), itself)[0, 0].tolist() == [
        [True, False],
        [True, True],
    ]


def test_a_mask_that_is_no_tensor_is_said(llava: Case) -> None:
    family = family_of(llava.model)
    probe = from_rows(family, prompts_of(llava), 2)
    nothing = Hidden.of([], probe.spots, probe.valid, 5)
    layer = family.layers[1]
    handle = layer.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "attention_mask": object()}),
        with_kwargs=True,
    )
    with pytest.raises(NoOracle, match="no tensors"), masked(family, nothing):
        llava.model(**probe.batch)
    handle.remove()


def test_attention_whose_values_cannot_be_reached_is_said(llava: Case) -> None:
    family = family_of(llava.model)
    probe = from_rows(family, prompts_of(llava), 2)
    hidden = Hidden.of([], probe.spots, probe.valid, 5)
    object.__setattr__(hidden, "edits", {1: Edit("cut")})
    attention = family.layers[1].self_attn
    attention.values = attention.__dict__["_modules"].pop("v_proj")
    with pytest.raises(NoOracle, match="without v_proj"), masked(family, hidden):
        pass
    assert not family.layers[0]._forward_pre_hooks  # nothing is left where it could not begin
