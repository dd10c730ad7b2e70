"""What was kept of a scene's objects, where nothing or everything was removed."""

from __future__ import annotations

import numpy as np
import torch

from prunus.evaluate import EvalSet
from prunus.evaluate.evidence import evidence
from prunus.grid import Grid
from prunus.method import Edit
from prunus.results.trace import TraceEntry

GRID = Grid(1, 24, 24, (8, 8))


def entry(kept: torch.Tensor, place: str) -> TraceEntry:
    edits = {0: Edit("cut")} if place == "attention" else {}
    return TraceEntry(place, 0, "visipruner", [[kept]], [[GRID]], [["image"]], edits=edits)


def test_without_a_removal_all_objects_are_there(questions: EvalSet) -> None:
    scene = questions.scenes[0]
    assert scene is not None
    for trace in ([], [entry(torch.arange(GRID.size), "attention")]):
        found = evidence(trace, 0, scene, [0])
        assert (found.objects, found.asked) == (1.0, 1.0) and np.isnan(found.ranking)
        assert np.isnan(evidence(trace, 0, scene, []).asked)


def test_behind_an_exit_nothing_is_left(questions: EvalSet) -> None:
    scene = questions.scenes[0]
    assert scene is not None
    every, none = torch.arange(GRID.size), torch.zeros(0, dtype=torch.long)
    trace = [entry(every, "attention"), entry(none, "decoder")]
    found = evidence(trace, 0, scene, [0])
    assert (found.objects, found.asked) == (0.0, 0.0)
