"""What a report says of one sample does not depend on how often ``generate`` repeats it, and what
was asked for is counted as the method counts it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, MMR, EvoPrune, Method, Random, Uniform
from tests.support.models import Case, prompts_for
from tests.support.qwen import qwen
from tests.support.random_selectors import RandomStepwise
from tests.support.settings import settings

METHODS = settings() | {"mmr-diverse": MMR(keep=5, weight=0.0)}


def reported(case: Case, method: Any, inputs: dict[str, Tensor], **options: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    with prunus.prune(case.model, method) as run, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an adaptive method may find nothing to do
        case.model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, **options)
    return dict(run.report())


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3, "do_sample": False},
        {"num_beams": 4, "num_return_sequences": 2, "do_sample": False},
        {"num_return_sequences": 3, "do_sample": True},
    ],
    ids=["beams", "beams-and-several", "several"],
)
def test_beams_and_returned_sequences_cost_what_one_does(
    llava: Case, name: str, options: dict[str, Any]
) -> None:
    inputs, method = llava.prompts.rows(2, 1), METHODS[name]
    one = reported(llava, method, inputs, do_sample=False)
    assert one["samples"] == 2
    assert reported(llava, method, inputs, **options) == one


@pytest.mark.parametrize("method", [MMR(keep=5), EvoPrune(keep=4, start=0, schedule="mean")])
def test_also_with_videos(method: Method) -> None:
    case = Case("qwen2.5-vl-video", qwen(), prompts_for("qwen2.5-vl-video"))
    inputs = case.prompts.rows(2, 1)
    one = reported(case, method, inputs, do_sample=False)
    assert one["flops"]["pruned"]["method"] > 0
    assert reported(case, method, inputs, do_sample=False, num_beams=3) == one


def test_scoring_a_batch_costs_what_its_rows_cost(llava: Case) -> None:
    """The method's own work is a mean over samples, like everything else."""
    inputs, method = llava.prompts.rows(1, 1), CLSE(keep=5)
    both = reported(llava, method, inputs, do_sample=False)["flops"]["pruned"]["method"]
    alone = llava.prompts.one(inputs, 0)
    assert both == reported(llava, method, alone, do_sample=False)["flops"]["pruned"]["method"] > 0


@pytest.mark.parametrize(
    ("method", "each"),
    [
        (CLSE(keep=5), 5),
        (Uniform(keep=5, layer=None), 5),
        (Random(keep=1000), None),  # all there are
        (MMR(keep=5), 5),
        (EvoPrune(keep=4, start=0, schedule="mean"), "frames"),
        ([EvoPrune(keep=4, start=0, schedule="mean"), Uniform(keep=3)], 3),
        ([Uniform(keep=3, layer=3), EvoPrune(keep=4, start=0, schedule="mean")], 3),
    ],
    ids=["clse", "uniform", "random", "mmr", "evoprune", "evoprune-uniform", "the-other-way"],
)
def test_a_whole_number_counts_per_video_or_per_frame(method: Any, each: Any) -> None:
    """Of a video ``keep=5`` is five in all; EvoPrune counts per frame, as its paper does."""
    case = Case("qwen2.5-vl-video", qwen(), prompts_for("qwen2.5-vl-video"))
    inputs = case.prompts.rows(2, 1)
    grids = [grid for sample in case.prompts.grids(inputs) for grid in sample]
    assert {frames for frames, _, _ in grids} == {1, 2, 3}
    wanted = {
        None: [t * h * w for t, h, w in grids],
        "frames": [4 * t for t, _, _ in grids],
    }.get(each) or [each] * len(grids)
    tokens = reported(case, method, inputs, do_sample=False)["tokens"]
    assert tokens["nominal"] == sum(wanted) / 2 == tokens["kept"]


def test_a_share_counts_per_video_or_per_frame() -> None:
    """Rounded down once per video, or once per frame."""
    case = Case("qwen2.5-vl-video", qwen(), prompts_for("qwen2.5-vl-video"))
    inputs = case.prompts.rows(2, 1)
    grids = [grid for sample in case.prompts.grids(inputs) for grid in sample]
    for method, counts in (
        (Random(keep=0.4), [int(0.4 * t * h * w + 1e-6) for t, h, w in grids]),
        (EvoPrune(keep=0.4), [t * int(0.4 * h * w + 1e-6) for t, h, w in grids]),
    ):
        assert (
            reported(case, method, inputs, do_sample=False)["tokens"]["nominal"] == sum(counts) / 2
        )


def test_a_count_of_its_own_is_no_nominal_count(llava: Case) -> None:
    inputs = llava.prompts.rows(2, 1)
    report = reported(llava, RandomStepwise(bias=-1.0), inputs, do_sample=False)
    assert report["tokens"]["nominal"] is None
