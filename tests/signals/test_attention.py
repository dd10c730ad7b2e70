"""One attention row, against the full map of eager attention."""

from __future__ import annotations

import pytest
import torch

from prunus import Cut, Method, View, prune
from prunus.method.signals import Attention
from tests.support.models import Case

Owner = tuple[int, int]


def rows_seen(
    case: Case, inputs: dict[str, torch.Tensor], layer: int, **options: object
) -> dict[Owner, torch.Tensor]:
    """What a method is given as attention of ``layer``: ``[tokens]`` by sample and image."""
    seen = {}

    class Probe(Method):
        def cuts(self, depth: int) -> list[Cut]:
            return [Cut(layer + 1, (Attention(layer),))]

        def counts(self, keep: object, original: int, depth: int) -> list[int]:
            return [original]

        def score(self, stage: int, view: View) -> torch.Tensor:
            scores: torch.Tensor = view[Attention(layer)]
            seen.update(zip(view.owners, scores, strict=True))
            return scores

    Probe.name = "probe"
    with prune(case.model, Probe()), torch.no_grad():
        case.model(**inputs, **options)
    return seen


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("use_cache", [True, False])
def test_equals_the_last_row_of_the_eager_map(case: Case, layer: int, use_cache: bool) -> None:
    inputs = case.prompts.rows(2, 1)
    case.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = case.model(**inputs, output_attentions=True).attentions[layer]
    expected = {}
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            expected[row, image] = maps[row, :, -1, places].mean(0)
    case.model.set_attn_implementation("sdpa")
    found = rows_seen(case, inputs, layer, use_cache=use_cache)
    assert set(found) == set(expected) == {(0, 0), (0, 1), (1, 0)}
    for owner, attention in found.items():
        assert attention.dtype == torch.float32
        assert (attention - expected[owner]).abs().max() < 1e-6


def test_an_answer_never_leaks_into_the_row(llava: Case) -> None:
    inputs = llava.prompts.rows(1, text=8)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -3:] = inputs["input_ids"][:, -3:]
    with_answer = rows_seen(llava, inputs, 0, labels=labels)[0, 0]
    prompt = {key: value[:, :-3] for key, value in inputs.items() if key != "pixel_values"}
    prompt["pixel_values"] = inputs["pixel_values"]
    without = rows_seen(llava, prompt, 0)[0, 0]
    assert (with_answer - without).abs().max() < 1e-7
    assert (rows_seen(llava, inputs, 0)[0, 0] - without).abs().max() > 1e-6
