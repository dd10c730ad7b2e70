"""The measured threshold keeps what was asked for when VisiPruner runs with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

import prunus
from prunus import VisiPruner
from prunus.analyse.context import Context
from prunus.calibrate.filtering import find_filtering
from prunus.calibrate.visipruner import calibrate_visipruner
from prunus.tasks.sets import training_questions
from tests.support.llava import DEPTH, Prompts, text_config
from tests.support.models import MODELS, prompts_for

#: Random weights: without a question that matters, a bound close to 1 makes layers filter.
BOUND = 0.9999

Batches = list[dict[str, Tensor]]


@pytest.fixture(params=["llava-clip", "qwen2.5-vl"])
def model(request: pytest.FixtureRequest) -> tuple[Any, Batches]:
    """A model and two padded batches with one, two and three images per prompt."""
    prompts = prompts_for(request.param)
    return MODELS[request.param](), [prompts.rows(1, 2), prompts.rows(3, 1, 2, seed=5)]


def run(model: Any, batches: Batches, method: VisiPruner) -> list[tuple[int, int, Tensor]]:
    """For each prompt that filters: the layer at whose input tokens go, how many are kept, and all
    scores."""
    found = []
    for inputs in batches:
        with torch.no_grad(), prunus.prune(model, method) as pruned:
            model(**inputs)
        filtered = {}
        for entry in pruned.trace:
            for row, labels in enumerate(entry.labels or []):
                if "filter" in labels:
                    kept = sum(len(image) for image in entry.kept[row])
                    filtered[row] = (entry.layer, kept, torch.cat(entry.scores[row]))
        found += [filtered[row] for row in sorted(filtered)]
    return found


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (VisiPruner(shallow_layers=0, layer_threshold=BOUND, stages=("middle",)), 4),
        (VisiPruner(shallow_layers=1, layer_threshold=BOUND, stages=("middle",)), 2.6),
        (VisiPruner(shallow_layers=1, layer_threshold=BOUND, stages=("shallow", "middle")), 7),
        (VisiPruner(shallow_layers=2, layer_threshold=BOUND, preset="paper"), 1),
    ],
)
def test_the_mean_is_met_exactly(
    model: tuple[Any, Batches], tmp_path: Path, method: VisiPruner, target: float
) -> None:
    network, batches = model
    found = calibrate_visipruner(network, "tiny", batches, method, target=target)
    found.save(tmp_path / "thresholds.json")
    stages = tuple(stage for stage in method.stages if stage != "deep")
    method = replace(
        method, stages=stages, calibration=str(tmp_path / "thresholds.json"), shallow_layers=None
    )
    measured = found.measured
    kept = [count for _, count, _ in run(network, batches, method)]
    assert len(kept) > 2 and sum(kept) == round(target * len(kept))
    assert measured["prompts"] == 5 and measured["triggered"] == len(kept) / 5
    assert measured["kept"] == {
        "mean": np.mean(kept),
        "median": np.median(kept),
        "min": min(kept),
        "max": max(kept),
    }
    # The same rule, relative to the mean length of the output.
    threshold = found.params["tokens_threshold"]
    assert measured["relative"] * measured["output"] == pytest.approx(threshold)


def test_the_mean_is_met_on_the_built_in_model(tmp_path: Path) -> None:
    model, processor = prunus.load("tiny-llava")
    context = Context(model, processor, training_questions(5, 1))
    batches = [context.inputs(batch) for batch in context.batches]
    found = calibrate_visipruner(model, "tiny-llava", batches, VisiPruner())
    found.save(tmp_path / "thresholds.json")
    method = VisiPruner(calibration=str(tmp_path / "thresholds.json"), stages=("shallow", "middle"))
    assert sum(count for _, count, _ in run(model, batches, method)) == 5 * 10


def test_layers_and_changes_are_those_that_visipruner_sees(model: tuple[Any, Batches]) -> None:
    network, batches = model
    method = VisiPruner(shallow_layers=1, layer_threshold=BOUND)
    steps: list[int] = []
    found = find_filtering(network, batches, method, steps.append)
    assert steps == [2, 3]
    seen = run(network, batches, replace(method, stages=("shallow", "middle"), tokens_threshold=1))
    assert [(one.layer or 0) + 1 for one in found] == [layer for layer, _, _ in seen]
    for one, (_, _, scores) in zip(found, seen, strict=True):
        assert one.lowest < BOUND
        torch.testing.assert_close(one.change.sort().values, scores.sort().values)
    counted = calibrate_visipruner(network, "tiny", batches, method, target=3)
    layers = [one.layer for one in found]
    assert counted.measured["filtering_layers"] == {
        str(layer): layers.count(layer) for layer in sorted(set(layers))
    }
    assert counted.depth == DEPTH and counted.params["shallow_layers"] == 1


def test_prompts_without_a_filtering_layer_do_not_count(model: tuple[Any, Batches]) -> None:
    network, batches = model
    method = VisiPruner(shallow_layers=1, layer_threshold=BOUND)
    lowest = sorted(
        one.lowest for one in find_filtering(network, batches, replace(method, layer_threshold=-1))
    )
    between = replace(method, layer_threshold=(lowest[2] + lowest[3]) / 2)
    with pytest.warns(UserWarning, match="2 of 5 prompts have no filtering layer"):
        found = calibrate_visipruner(network, "tiny", batches, between, target=5)
    assert found.measured["triggered"] == 0.6 and found.measured["kept"]["mean"] == 5
    with pytest.raises(ValueError, match="in none of 5 prompts .* Choose a layer_threshold above"):
        calibrate_visipruner(network, "tiny", batches, replace(method, layer_threshold=-1))


def test_what_cannot_be_calibrated(model: tuple[Any, Batches]) -> None:
    network, batches = model
    method = VisiPruner(shallow_layers=1, layer_threshold=2)
    for target in (0, -3, 0.05, 1000, float("inf")):
        with pytest.raises(ValueError, match=r"choose a number from 0\.2 to that"):
            calibrate_visipruner(network, "tiny", batches, method, target=target)
    deep = replace(method, shallow_layers=3)
    with pytest.raises(ValueError, match="choose another shallow_layers"):
        calibrate_visipruner(network, "tiny", batches, deep)
    with pytest.raises(ValueError, match="no prompts"):
        calibrate_visipruner(network, "tiny", [], method)


def test_every_prompt_needs_an_image() -> None:
    batch = Prompts(0).rows(1, 0)
    with pytest.raises(ValueError, match="prompt 3 has no image"):
        calibrate_visipruner(
            MODELS["llava-clip"](),
            "tiny",
            [Prompts(0).rows(1, 1), batch],
            VisiPruner(shallow_layers=1),
        )
    with pytest.raises((TypeError, ValueError), match="supported"):
        calibrate_visipruner(LlamaForCausalLM(text_config()), "text", [batch], VisiPruner())
