"""The L1 norm of values: over all query heads, each with the values of its key/value head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import Cut, Method, Selection, View
from prunus.method.signals import ValueNorm
from tests.support.models import Case

LAYER = 2


class Probe(Method):
    """Keeps everything, and notes what it sees behind a layer."""

    def __init__(self, *before: int) -> None:
        self.seen: dict[tuple[int, int], Tensor] = {}

    def cuts(self, depth: int) -> list[Cut]:
        return [Cut(LAYER + 1, (ValueNorm(LAYER),))]

    def select(self, stage: int, view: View) -> Selection:
        norms = view[ValueNorm(LAYER)]
        assert norms.dtype == torch.float32 and norms.shape == view.present.shape
        self.seen.update(zip(view.owners, norms, strict=True))
        return Selection.everything(view)


Probe.name = "probe"


def literal(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """``[B, L]`` from the layer's own projection, head by head."""
    attention = model.model.language_model.layers[LAYER].self_attn
    rows: list[Tensor] = []
    handle = attention.v_proj.register_forward_hook(lambda m, a, output: rows.append(output))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    text = model.config.get_text_config()
    heads, shared = text.num_attention_heads, text.num_key_value_heads
    assert heads > shared  # or the test could not tell the two apart
    values = rows[0].unflatten(-1, (shared, -1))
    total = torch.zeros(values.shape[:2])
    for head in range(heads):
        total += values[:, :, head // (heads // shared)].abs().sum(-1)
    return total


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("before", [[], [prunus.Random(keep=0.5, layer=0)]])
def test_is_the_sum_over_query_heads(case: Case, use_cache: bool, before: list[Method]) -> None:
    inputs = case.prompts.rows(2, 1)
    probe = Probe()
    with prunus.prune(case.model, [*before, probe]) as run, torch.no_grad():
        case.model(**inputs, use_cache=use_cache)
    if before:  # only values of what is left are seen; the states differ from the dense ones
        left = run.trace[0].kept
        assert {owner: len(norms) for owner, norms in probe.seen.items()} == {
            (row, image): len(kept)
            for row, sample in enumerate(left)
            for image, kept in enumerate(sample)
        }
        return
    expected = literal(case.model, inputs)
    spots = case.prompts.spots(inputs["input_ids"])
    assert set(probe.seen) == {(0, 0), (0, 1), (1, 0)}
    for (row, image), norms in probe.seen.items():
        assert torch.allclose(norms, expected[row, spots[row][image]], rtol=1e-5)
