"""What lmms-eval reports becomes runs of a comparison: scores, costs, paired differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prunus.compare.statistics import difference
from prunus.compare.tables import markdown
from prunus.compare.verdicts import renewed
from prunus.errors import PrunusError
from prunus.evaluate.cells import make_cells
from prunus.lmms.comparison import make_run
from prunus.lmms.notes import notes_of
from prunus.lmms.outcome import TaskOutcome, outcome_of
from tests.compare.sample import make_comparison


def sample(number: int, **more: Any) -> dict[str, Any]:
    """One sample as lmms-eval logs it: two questions about each picture."""
    figures = {"original": 10.0, "kept": 4.0, "average": 5.0, "resident": 5.0}
    figures |= {"llm_flops": 3.0, "dense_llm_flops": 6.0, "flops": 4.0, "dense_flops": 8.0}
    known = {
        "kind": "image",
        "shows": f"picture {number // 2}",
        "figures": {**figures, "kv": None, "dense_kv": None, "per_layer": [10.0, 4.0]},
        "ttft": 1.0 + number,
        "e2e": 2.0 + number,
        "error": None,
    }
    return {
        "doc_id": number,
        "target": "yes",
        "filtered_resps": ["yes"],
        "arguments": (f"question {number} ?",),
        "token_counts": [{"input_tokens": 7, "prunus": known}],
        **more,
    }


def outcome(scores: list[float], name: str = "acc") -> TaskOutcome:
    reported = {f"{name},none": float(np.mean(scores)), f"{name}_stderr,none": 0.1, "alias": "t"}
    samples = [sample(number, **{name: score}) for number, score in enumerate(scores)]
    return outcome_of("t", reported, samples[::-1])


def test_pope_reports_f1_and_has_a_score_of_each_question() -> None:
    names = ("pope_accuracy", "pope_f1_score")
    inside = [{name: {"question_id": n, "score": n % 2} for name in names} for n in range(4)]
    reported = {"pope_accuracy,none": 0.5, "pope_f1_score,none": 0.6}
    found = outcome_of("pope", reported, [sample(n, **one) for n, one in enumerate(inside)])
    assert found["measure"] == "pope_accuracy" and found["metrics"]["pope_f1_score"] == 0.6
    assert [one["score"] for one in found["samples"]] == [0, 1, 0, 1]


def test_mme_has_one_of_two_metrics_in_each_question_and_its_category() -> None:
    names = ("mme_perception_score", "mme_cognition_score")
    samples = [
        sample(n, **{names[n % 2]: {"category": ("OCR", "code")[n % 2], "score": 1.0}})
        for n in range(4)
    ]
    reported = {f"{name},none": 200.0 for name in names}
    found = outcome_of("mme", reported, samples)
    assert found["measure"] == " | ".join(names)
    assert found["metrics"] == dict.fromkeys(names, 200.0)
    assert [one["type"] for one in found["samples"]] == ["OCR", "code", "OCR", "code"]


def test_a_task_without_scores_of_questions_says_so() -> None:
    found = outcome_of("t", {"gpt,none": 12.5}, [sample(0, gpt={"answer": "x"})])
    assert found["measure"] is None and found["metrics"] == {"gpt": 12.5}
    assert "no score of single questions" in notes_of({"dense": found})[0]


def test_several_answers_to_one_question_are_refused() -> None:
    with pytest.raises(PrunusError, match="several answers"):
        outcome_of("t", {}, [sample(0, acc=1), sample(0, acc=0)])


def test_rows_have_costs_and_differences_paired_by_what_is_shown() -> None:
    dense, ours = [1.0, 1, 1, 0, 1, 1], [1.0, 0, 1, 0, 0, 0]
    cells = make_cells(["clse", "random"], [4], [0])
    given = {"dense": outcome(dense), "clse@4": outcome(ours), "random@4#0": outcome(dense)}
    run = make_run("a/model", given, cells, "nominal")
    assert run["id"] == "model/t" and run["images"] == 3 and run["questions"] == 6
    assert run["right"]["clse|nominal|4"] == "101000" and "scores" not in run
    row = run["rows"][0]
    assert (row["average"], row["kept"], row["per_layer"]) == (5.0, 4.0, [10.0, 4.0])
    assert row["cost"] == {"llm_flops": 0.5, "flops": 0.5, "kv": None, "time": None}
    wanted = difference(np.array([ours]), np.array([dense]), np.array([0, 0, 1, 1, 2, 2]))
    assert row["against"]["dense"]["value"] == wanted.estimate.value == -0.5
    assert row["against"]["dense"]["p"] == wanted.p
    assert row["metrics"]["acc"] == pytest.approx(2 / 6)
    assert row["metrics"]["seconds to first token"] == 3.5
    assert renewed(run, None)["rows"] == run["rows"]


def test_scores_between_0_and_1_are_compared_as_they_are() -> None:
    """TextVQA gives a third for each of three people who agree."""
    dense, ours = [1 / 3, 1.0, 0.0, 2 / 3], [1 / 3, 2 / 3, 0.3, 0.0]
    cells = make_cells(["clse"], [4], [0])
    run = make_run("m", {"dense": outcome(dense), "clse@4": outcome(ours)}, cells, "true")
    row = run["rows"][0]
    assert row["key"] == "clse|true|4" and row["accuracy"]["value"] == pytest.approx(np.mean(ours))
    assert row["against"]["dense"]["value"] == pytest.approx(np.mean(ours) - np.mean(dense))
    assert run["right"] == {"dense": "0101", "clse|true|4": "0100"}
    again = renewed(run, None)  # as `prunus compare --from` does
    assert again["rows"] == run["rows"] and again["dense"] == run["dense"]


def test_other_questions_are_not_compared() -> None:
    cells = make_cells(["clse"], [4], [0])
    given = {"dense": outcome([1.0, 0.0]), "clse@4": outcome([1.0])}
    with pytest.raises(PrunusError, match="not asked the same questions"):
        make_run("m", given, cells, "nominal")


def test_what_was_refused_is_told_and_counted() -> None:
    cells = make_cells(["clse"], [4], [0])
    refused = [sample(n, acc=0.0) for n in range(2)]
    for one in refused:
        one["token_counts"][0]["prunus"]["error"] = "too few"
    given = {"dense": outcome([1.0, 1.0]), "clse@4": outcome_of("t", {"acc,none": 0}, refused)}
    run = make_run("m", given, cells, "nominal")
    assert run["rows"][0]["refused"] == "every question was refused: too few"
    assert "2 questions were refused" in notes_of(given)[-1]


def test_tables_show_what_the_benchmark_reports() -> None:
    comparison: Any = make_comparison(questions=20, pictures=0)
    run = comparison["runs"][0]
    row = {**run["rows"][0], "metrics": {"mme_perception_score": 1506.0}}
    text = markdown({**comparison, "runs": [{**run, "rows": [row]}]})
    assert "| mme_perception_score |" in text and "| 1506 |" in text
    assert "mme_perception_score" not in markdown(comparison)
