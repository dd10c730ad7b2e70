"""The probe changes nothing and notes what the plain model's own outputs say; vision can leave."""

from typing import Any

import pytest
import torch

import prunus
from prunus.analyse.leave import Leave
from prunus.analyse.probe import Probe
from prunus.analyse.signals import Notes, _Writer
from prunus.method import methods
from prunus.signals.spectral import high_frequency
from tests.support.facts import asks
from tests.support.models import Case


def noted(case: Case, inputs: dict[str, Any]) -> tuple[dict[int, Notes], torch.Tensor]:
    own: dict[int, Notes] = {}
    with torch.inference_mode(), prunus.prune(case.model, Probe(_Writer(own))):
        logits = case.model(**inputs).logits
    return own, logits


def test_notes_are_those_of_the_plain_model(case: Case) -> None:
    inputs = case.prompts.rows(1, 1)
    own, logits = noted(case, inputs)
    case.model.set_attn_implementation("eager")
    with torch.inference_mode():
        plain = case.model(**inputs, output_hidden_states=True, output_attentions=True)
    real = inputs["attention_mask"].bool()
    assert torch.allclose(logits[real], plain.logits[real], atol=1e-5)
    depth = len(plain.attentions)
    for sample, spots in enumerate(case.prompts.spots(inputs["input_ids"])):
        note, at = own[sample], torch.tensor(spots[0])
        states = [layer[sample, at] for layer in plain.hidden_states[:depth]]
        for layer in range(depth):
            assert torch.allclose(note.level[layer], states[layer].mean(-1), atol=1e-5)
            assert torch.allclose(note.amplitude[layer], states[layer].abs().mean(-1), atol=1e-5)
            wanted = high_frequency(states[layer][None], note.grid, 0.1)[0]
            assert torch.allclose(note.spectrum[layer], wanted, atol=1e-5)
        for layer in range(1, depth):
            for name, reference in (("global", 0), ("adjacent", layer - 1)):
                moved = (states[layer] - states[reference]).abs().sum(-1)
                assert torch.allclose(note.moved[name][layer - 1], moved, atol=1e-3)
            row = plain.attentions[layer - 1][sample, :, -1].mean(0)[at]
            assert torch.allclose(note.attention[layer - 1], row, atol=1e-5)
        assert len(note.spectrum) == depth and len(note.cosine) == depth - 1
        assert len(note.value_norm) == len(note.output) == depth - 1


@pytest.mark.parametrize("layer", [0, 2])
def test_vision_leaves(case: Case, layer: int) -> None:
    """No layer from there on sees the image: if that is every layer, any image gives the same."""
    inputs = case.prompts.rows(1, 1)
    with torch.inference_mode(), prunus.prune(case.model, Leave(layer)) as run:
        logits = case.model(**inputs).logits[:, -1]
        per_layer = run.report()["tokens"]["per_layer"]
    original = run.report()["tokens"]["original"]
    assert per_layer == [original] * layer + [0] * (len(per_layer) - layer)
    pixels = "pixel_values" if "pixel_values" in inputs else "pixel_values_videos"
    other = {**inputs, pixels: torch.randn_like(inputs[pixels])}
    with torch.inference_mode(), prunus.prune(case.model, Leave(layer)):
        changed = case.model(**other).logits[:, -1]
    gone = layer == 0 and case.name != "llava-clip-full"  # its CLS token stays, like text
    assert torch.allclose(logits, changed, atol=1e-5) == gone


def test_tools_are_not_listed_as_methods() -> None:
    assert "analysis" not in methods()
    with pytest.raises(TypeError, match="no neutral"):
        Leave(1).neutral()
    probe = Probe(print)
    assert probe.neutral() is probe and asks(probe)
