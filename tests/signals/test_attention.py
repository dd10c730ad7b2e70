"""One attention row, against the full map of eager attention."""

from __future__ import annotations

import pytest
import torch

from prunus import Cut, Method, prune
from tests.conftest import TOKENS, Case


def rows_seen(case: Case, inputs: dict, layer: int, **options: object) -> torch.Tensor:  # type: ignore[type-arg]
    """What a method is given as attention of ``layer``: ``[images, TOKENS]``."""
    seen = []

    class Probe(Method):
        def cuts(self, depth: int) -> list[Cut]:
            return [Cut(layer + 1, attention=(layer,))]

        def budget(self, stage: int, original: int) -> int:
            return original

        def score(self, stage: int, view: object) -> torch.Tensor:
            seen.append(view.attention(layer))  # type: ignore[attr-defined]
            return seen[-1]

        query_dependent = True  # type: ignore[assignment]

    Probe.name = "probe"
    with prune(case.model, Probe()), torch.no_grad():
        case.model(**inputs, **options)
    return seen[0]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("use_cache", [True, False])
def test_equals_the_last_row_of_the_eager_map(case: Case, layer: int, use_cache: bool) -> None:
    inputs = case.prompts.rows(2, 1)
    case.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = case.model(**inputs, output_attentions=True).attentions[layer]
    expected = []
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for places in images:
            expected.append(maps[row, :, -1, places].mean(0))
    case.model.set_attn_implementation("sdpa")
    found = rows_seen(case, inputs, layer, use_cache=use_cache)
    assert found.shape == (3, TOKENS) and found.dtype == torch.float32
    assert (found - torch.stack(expected)).abs().max() < 1e-6


def test_an_answer_never_leaks_into_the_row(llava: Case) -> None:
    inputs = llava.prompts.rows(1, text=8)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -3:] = inputs["input_ids"][:, -3:]
    with_answer = rows_seen(llava, inputs, 0, labels=labels)
    prompt = {key: value[:, :-3] for key, value in inputs.items() if key != "pixel_values"}
    prompt["pixel_values"] = inputs["pixel_values"]
    without = rows_seen(llava, prompt, 0)
    assert (with_answer - without).abs().max() < 1e-7
    assert (rows_seen(llava, inputs, 0) - without).abs().max() > 1e-6
