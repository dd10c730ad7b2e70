"""How the numbers of benchmarks came about, in words, beside them."""

from __future__ import annotations

from collections.abc import Mapping

from prunus.compare.columns import DENSE
from prunus.lmms.outcome import TaskOutcome

GENERAL = (
    "The questions, their wording and their scores are lmms-eval's. Accuracy is the mean score of "
    "single questions: what the benchmark reports is beside it, and may be another number (MME: "
    "sums over subtasks; POPE: F1).",
    "Questions that show the same pictures are of one image, whatever the task says of them.",
    "Seconds are medians over questions, of the batch in which each was asked: they were not "
    "measured in turns with the dense model, and depend on what else the machine did.",
)


def notes_of(given: Mapping[str, TaskOutcome]) -> list[str]:
    """What is to be known of one task, by the keys of cells."""
    dense = given[DENSE]
    task, measure = dense["task"], dense["measure"]
    if measure is None:
        lines = [f"{task}: lmms-eval has no score of single questions, so nothing is compared"]
    else:
        lines = [f"{task}: the score of a question is its {measure}"]
    for key, one in given.items():
        if one["refused"]:
            first = next(iter(one["refused"].values()))
            lines.append(
                f"{task}: {key}: {len(one['refused'])} questions were refused, and counted as "
                f"lmms-eval counts a wrong answer: {first}"
            )
    return lines
