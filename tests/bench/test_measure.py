"""What is measured of a prompt: parts, ratios, bytes; and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from prunus.bench.clock import quartiles, ratios
from prunus.bench.measure import Asked, measure
from prunus.bench.report import Case
from prunus.bench.splits import PARTS
from prunus.bench.workload import Workload
from tests.support.models import case_of

METHODS = ("clse", "divprune", "visionzip", "visipruner", "stepwise", "clse-m")


def workload(kind: str) -> Workload:
    case = case_of(kind)
    case.model.generation_config.eos_token_id = None

    def inputs(batch: int) -> Any:
        one = case.prompts.rows(1)
        return {name: v.repeat(batch, *[1] * (v.dim() - 1)) for name, v in one.items()}

    return Workload("tiny", case.model, inputs, lambda: torch.ones(3).sum(), 1.0, {})


@pytest.fixture(scope="module")
def found() -> Case:
    asked = Asked(METHODS, keep="5", tokens=(1, 3), rounds=3, warm_up=1)
    return measure(workload("llava-clip"), asked, 2)


def by_name(case: Case) -> dict[str, Any]:
    return {row["name"]: row for row in case["rows"]}


def test_the_parts_add_up_to_the_time_to_the_first_token(found: Case) -> None:
    for row in by_name(found).values():
        if row["refused"]:
            continue
        for parts, stamps in zip(row["rounds"]["parts"], row["rounds"]["stamps"], strict=True):
            assert set(parts) == set(PARTS)
            assert sum(parts.values()) == pytest.approx(stamps[0], rel=0.01)
            assert min(parts[name] for name in ("tower", "projector", "prefill")) > 0
            assert (parts["choosing"] > 0) == (row["name"] != "dense")
            assert len(stamps) == 3 and stamps == sorted(stamps)


def test_ratios_are_those_of_the_rounds(found: Case) -> None:
    rows = by_name(found)
    own, dense = rows["clse"], rows["dense"]
    first = [stamps[0] for stamps in own["rounds"]["stamps"]]
    theirs = [stamps[0] for stamps in dense["rounds"]["stamps"]]
    told = [stamps[0] for stamps in own["rounds"]["told"]]
    inside = [sum(p[k] for k in ("choosing", "prefill", "model")) for p in own["rounds"]["parts"]]
    assert own["first"] == list(quartiles(first))
    assert own["first_ratio"] == {
        "dense": list(ratios(first, theirs)),
        "told": list(ratios(first, told)),
        "bare": list(ratios(inside, own["rounds"]["bare"])),
    }
    assert own["token_ratio"]["bare"] == list(
        ratios(own["rounds"]["step"], own["rounds"]["plain_step"])
    )
    steps = [(s[-1] - s[0]) / 2 for s in own["rounds"]["stamps"]]
    assert own["token"] == pytest.approx(quartiles(steps))
    length = own["lengths"][1]
    assert length["tokens"] == 3
    assert length["per_second"] == pytest.approx(2 * 3 / length["seconds"][1])
    assert dense["first_ratio"]["dense"] == [1.0, 1.0, 1.0] and dense["first_ratio"]["told"] is None


@pytest.mark.parametrize("kind", ["llava-clip", "qwen2.5-vl"])
def test_bytes_of_the_cache_are_those_that_are_counted(kind: str) -> None:
    methods = ("clse", "fastv", "divprune", "pyramiddrop", "visionzip")
    case = measure(workload(kind), Asked(methods, "5", tokens=(1,), rounds=2, warm_up=0), 2)
    rows = by_name(case)
    assert not any(row["refused"] for row in rows.values())
    for row in rows.values():
        assert row["kv_bytes"]["measured"] == row["kv_bytes"]["counted"] > 0, row["name"]
    assert rows["divprune"]["kv_bytes"]["measured"] < rows["dense"]["kv_bytes"]["measured"]
    assert rows["divprune"]["peak_bytes"] < rows["dense"]["peak_bytes"]
    assert rows["dense"]["token"] is None  # of one token there is no further one


def test_what_cannot_run_has_a_row_that_says_why(found: Case) -> None:
    rows = by_name(found)
    assert "the least is" in rows["clse-m"]["refused"]
    assert "parts" not in rows["clse-m"]
    assert "edited" in rows["visipruner"]["no_bare"]
    assert rows["visipruner"]["first_ratio"]["bare"] is None
    assert rows["stepwise"]["refused"] is None  # with a selector that is drawn


def test_it_is_json(found: Case) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["batch"] == 2 and len(found["decode"] or ()) == 3


def test_nothing_is_left_behind() -> None:
    work = workload("llava-clip")
    with torch.no_grad():
        work.model(**work.inputs(1))  # transformers adds hooks of its own
    before = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in work.model.modules()]
    measure(work, Asked(("clse",), "5", tokens=(1,), rounds=2, warm_up=0), 1)
    after = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in work.model.modules()]
    assert before == after
