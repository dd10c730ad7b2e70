"""Scores of lmms-eval as columns of papers: added up, scaled, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from prunus.errors import PrunusError
from prunus.evaluate.cells import Cell
from prunus.reproduce import tasks
from prunus.reproduce.library import benchmarks
from prunus.reproduce.recipe import Arm
from prunus.reproduce.tasks import Tasks
from tests.support.command_line import Cli, refused

ASKED: list[tuple[str, str, int | None, str]] = []
METRICS: dict[str, dict[str, float]] = {
    "mme": {"mme_perception_score": 1400.0, "mme_cognition_score": 350.0},
    "pope": {"pope_f1_score": 0.85, "pope_accuracy": 0.9},
    "gqa": {"other": 1.0},
}


class Benches:
    """Answers as those of :mod:`prunus.lmms.running` do."""

    def __init__(self, bench: Any) -> None:
        self._bench = bench

    def outcomes(
        self,
        task: str,
        cells: Sequence[Cell],
        respondent: object,
        store: object,
        say: Callable[[str], None],
    ) -> dict[str, list[dict[str, Any]]]:
        [cell] = cells
        ASKED.append((task, cell.key, self._bench.limit, self._bench.meaning))
        return {cell.key: [{"metrics": METRICS[task], "samples": [{}] * 3, "e2e": [0.5, 0.25]}]}


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    monkeypatch.setattr(tasks, "check_installed", lambda: None)
    monkeypatch.setattr(tasks, "Benches", Benches)
    monkeypatch.setattr(Tasks, "_respondent", None)
    ASKED.clear()
    columns = [benchmarks()[name] for name in ("MME", "MME-P", "POPE", "GQA")]
    return Tasks("weights", columns, 7, "auto", "cpu", tmp_path)


CLSE = Arm("CLSE", 64, "clse@released", "64", "true")


def test_metrics_are_added_up_and_scaled(judge: Tasks) -> None:
    assert list(judge.jobs(CLSE)) == ["MME", "MME-P", "POPE", "GQA"]
    found = {job: judge.measure(CLSE, job) for job in ("MME", "MME-P", "POPE")}
    assert {job: one.values[job] for job, one in found.items()} == {
        "MME": 1750.0,
        "MME-P": 1400.0,
        "POPE": 85.0,
    }
    assert found["POPE"].facts == {"questions": 3, "seconds": 0.8}
    assert ASKED[0] == ("mme", "clse@released keep=64 true", 7, "true")


def test_the_dense_model_is_asked_without_a_method(judge: Tasks) -> None:
    judge.measure(Arm("dense", 0, "none", None), "POPE")
    assert ASKED == [("pope", "dense", 7, "nominal")]


def test_a_metric_that_is_not_there_is_told(judge: Tasks) -> None:
    with pytest.raises(PrunusError, match="gqa reports no exact_match: metrics are other"):
        judge.measure(CLSE, "GQA")


def test_what_a_number_depends_on(judge: Tasks) -> None:
    same = judge.identity(CLSE, "POPE")
    assert same == judge.identity(CLSE, "POPE")
    others = [
        judge.identity(CLSE, "GQA"),
        judge.identity(Arm("CLSE", 64, "clse@released", "64"), "POPE"),
        judge.identity(Arm("CLSE", 64, "clse", "64", "true"), "POPE"),
        judge.identity(Arm("CLSE", 64, "clse@released", "65", "true"), "POPE"),
    ]
    assert all(other != same for other in others)


def test_without_lmms_eval_it_is_said_how_to_get_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise PrunusError("no lmms-eval: pip install 'prunus[lmms]'")

    monkeypatch.setattr(tasks, "check_installed", missing)
    refused(cli("reproduce", "clse-1", "--output", tmp_path / "out"), "prunus[lmms]")
    refused(cli("reproduce", "clse-1", "--model", "nothing-there"), "nothing-there")
