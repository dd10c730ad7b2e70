"""What is said of methods without their saying it, proved by what they do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Knockout, VisiPruner, methods
from prunus.method.derived import derived
from prunus.pruners.pyramiddrop import PyramidDrop
from prunus.pruners.tome import ToMe
from prunus.selector.learned import Learned
from tests.support.command_line import Cli
from tests.support.models import case_of

#: Settings at which those that decide by themselves act, whatever the prompt.
FORCED: dict[str, list[Any]] = {
    "visipruner": [
        VisiPruner(layer_threshold=2, relative=0.6, min_tokens=4, shallow_layers=1),
        VisiPruner(stages=("shallow",)),
    ],
    "clse": [CLSE(keep=5), CLSE(keep=5, variant="hybrid"), CLSE(keep=9, variant="released")],
    "fixed": [prunus.Fixed([0, 3, 7])],
    "knockout": [Knockout()],
    "mmr": [prunus.MMR(keep=5), prunus.MMR(keep=5, weight=0.0)],
}


def chosen() -> list[Any]:
    """Every method without training, at some setting that acts."""
    found = []
    for name, cls in methods().items():
        if not issubclass(cls, Learned):
            fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
            found += FORCED.get(name, [cls(keep=5 / 9)] if "keep" in fields else [cls()])
    return found


@pytest.mark.parametrize("method", chosen(), ids=lambda one: f"{one.name}")
def test_it_sees_the_question_if_it_says_so(method: Any) -> None:
    """The same image with several questions gives the same tokens if, and only if, it says no."""
    case = case_of("llava-clip")
    inputs = case.prompts.rows(1, text=12)
    kept = set()
    for seed in range(8):
        ids = inputs["input_ids"].clone()
        words = torch.randint(3, 90, (12,), generator=torch.Generator().manual_seed(seed))
        ids[0, -12:] = words
        with torch.no_grad(), prunus.prune(case.model, method) as run:
            case.model(**{**inputs, "input_ids": ids})
        kept.add(tuple(tuple(entry.kept[0][0].tolist()) for entry in run.trace))
    sees = derived(method, depth=5)["question"]
    assert (len(kept) > 1) == sees


@pytest.mark.parametrize(
    ("method", "facts"),
    [
        (CLSE(), {"question": False, "count": "asked", "places": ["decoder layer 1"]}),
        (CLSE(variant="hybrid"), {"question": True}),
        (EvoPrune(), {"places": ["vision tower"], "merges": True, "tower": True}),
        (ToMe(r=2), {"count": "own", "places": ["vision tower"]}),
        (PyramidDrop(), {"count": "schedule", "places": ["decoder layers 8, 16, 24"]}),
        (PyramidDrop(keep=0.5), {"count": "asked"}),
        (Knockout(), {"count": "all", "places": ["attention of decoder layer 0"]}),
        (prunus.Stepwise(), {"count": "own", "tower": True, "question": True}),
        (prunus.Random(layer=None), {"places": ["before the language model"], "tower": False}),
        (
            VisiPruner(),
            {
                "count": "own",
                "places": ["decoder layers 8 to 31", "attention of decoder layers 0 to 5"],
            },
        ),
    ],
)
def test_facts(method: Any, facts: dict[str, Any]) -> None:
    found = derived(method)
    assert {name: found[name] for name in facts} == facts


def test_they_are_listed(cli: Cli) -> None:
    told = cli("methods", "--json").json
    assert {one: facts["derived"] for one, facts in told.items()} == {
        name: derived(cls()) for name, cls in methods().items()
    }
    lines = cli("methods").out.splitlines()
    assert all(len(line) <= 100 for line in lines)  # the terminal of the tests
    [fastv] = [line.split() for line in lines if line.startswith("  fastv")]
    assert fastv[1] == "q"
    tower = lines.index("in the vision tower:")
    assert "  evoprune " in "\n".join(lines[tower : lines.index("", tower)])
    assert "sees the question: no" in cli("methods", "clse").out
    assert "sees the question: yes" in cli("methods", "clse@hybrid").out
    assert "acts at: before the language model\n" in cli("methods", "divprune").out
    assert "acts at: decoder layers 8, 16, 24 of 32\n" in cli("methods", "pyramiddrop").out
    assert "acts at: decoder layer 2 of 32\n" in cli("methods", "fastv").out


def test_nothing_of_a_summary_is_left_out(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    summaries = {name: cls.summary for name, cls in methods().items()}
    monkeypatch.setenv("COLUMNS", "60")
    lines = cli("methods").out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    narrow = " ".join(" ".join(lines).split())
    assert all(" ".join(summary.split()) in narrow for summary in summaries.values())
    monkeypatch.setenv("COLUMNS", "200")
    lines = cli("methods").out.splitlines()
    assert sorted(line.split()[0] for line in lines if line[:2] == "  ") == list(summaries)
