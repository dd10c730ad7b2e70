"""What one run of lmms-eval says of one task, as plain values: scores, answers, costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from prunus.compare.desk import FIGURES
from prunus.errors import PrunusError, shown

#: Characters of a question that are kept: some tasks have pages of text.
_LONGEST = 400
#: What a score of one sample may be called within a mapping.
_INSIDE = ("score", "acc", "accuracy", "exact_match")


class Sample(TypedDict):
    """One question: number, its type (a category of the task, or "all"), what it shows (a digest;
    None: unknown), its text, the true answer, the one that was ``given``, and its ``score`` in
    0..1."""

    number: int
    type: str
    shows: str | None
    text: str
    answer: str
    given: str
    score: float


class TaskOutcome(TypedDict):
    """One task, which shows images or videos (``kind``).

    ``metrics``: what the task reports, by name; ``measure``: which metric the scores of samples are
    of (None: it has none for each, and ``score`` is 0); ``samples``; ``sums``: of the figures of
    :data:`~prunus.compare.desk.FIGURES` over all samples, None where one was not counted;
    ``ttft``, ``e2e``: seconds of samples; ``refused``: why questions were, by their numbers.
    """

    task: str
    kind: str
    metrics: dict[str, float]
    measure: str | None
    samples: list[Sample]
    sums: dict[str, Any] | None
    ttft: list[float]
    e2e: list[float]
    refused: dict[str, str]


def outcomes_of(results: Mapping[str, Any]) -> list[TaskOutcome]:
    """All tasks in ``results`` (of ``lmms_eval.evaluator.simple_evaluate``, or a results file with
    its ``samples`` put back), those of groups each by itself.

    Raises:
        PrunusError: there are no samples.
    """
    samples = results.get("samples") or {}
    if not samples:
        raise PrunusError("lmms-eval gave no samples: run it with --log_samples")
    return [
        outcome_of(name, results["results"].get(name, {}), own) for name, own in samples.items()
    ]


def outcome_of(
    task: str, metrics: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]
) -> TaskOutcome:
    """One task of a run, with one answer for each of its questions.

    Raises:
        PrunusError: a question has several answers.
    """
    numbers = _metrics(metrics)
    measure = _measure(list(numbers), samples)
    found: list[Sample] = []
    costs, times, refused = [], [], {}
    for sample in sorted(samples, key=lambda one: int(one["doc_id"])):
        known = _prunus(sample)
        number = int(sample["doc_id"])
        given, text = _given(sample), _text(sample)
        found.append(
            Sample(
                number=number,
                type=_type(sample),
                shows=None if known is None else known["shows"],
                text=text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...",
                answer=str(sample.get("target", "")),
                given=given,
                score=0.0 if measure is None else _score(sample, measure),
            )
        )
        if known is not None and known["error"] is not None:
            refused[str(number)] = known["error"]
        elif known is not None:
            costs.append(known["figures"])
            times.append(known)
    if len({one["number"] for one in found}) < len(found):
        raise PrunusError(
            f"{task}: there are several answers to one question (repeats): scores cannot be paired"
        )
    return TaskOutcome(
        task=task,
        kind=next((one["kind"] for one in times), "image"),
        metrics=numbers,
        measure=measure,
        samples=found,
        sums=_sums(costs) if len(costs) == len(found) - len(refused) and costs else None,
        ttft=[one["ttft"] for one in times if one["ttft"] is not None],
        e2e=[one["e2e"] for one in times],
        refused=refused,
    )


def _metrics(given: Mapping[str, Any]) -> dict[str, float]:
    """``{"accuracy,none": 0.5, "accuracy_stderr,none": ...}`` as ``{"accuracy": 0.5}``; of several
    filters, with their name."""
    plain = {
        name: value
        for name, value in given.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and "," in name
    }
    found = {}
    for name, value in plain.items():
        metric, _, rest = name.partition(",")
        if "_stderr" in metric or not np.isfinite(value):
            continue
        found[metric if rest == "none" else f"{metric} ({rest})"] = float(value)
    return found


def _measure(names: Sequence[str], samples: Sequence[Mapping[str, Any]]) -> str | None:
    """The first metric of the task (of MME the first of several) that every sample has a score of,
    by itself or together with others."""
    bare = [name.partition(" (")[0] for name in names]
    for name in bare:
        if all(_number(sample.get(name)) is not None for sample in samples):
            return name
    several = [name for name in bare if any(name in sample for sample in samples)]
    if several and all(
        any(_number(sample.get(name)) is not None for name in several) for sample in samples
    ):
        return " | ".join(dict.fromkeys(several))
    return None


def _number(value: Any) -> float | None:
    """A score in 0..1 of one sample."""
    if isinstance(value, Mapping):
        value = next((value[name] for name in _INSIDE if name in value), None)
    if isinstance(value, (bool, int, float, np.number)) and 0 <= float(value) <= 1:
        return float(value)
    return None


def _score(sample: Mapping[str, Any], measure: str) -> float:
    found = [_number(sample.get(name)) for name in measure.split(" | ")]
    return next(one for one in found if one is not None)


def _type(sample: Mapping[str, Any]) -> str:
    """MME, for one, says a category with each score."""
    inside = (value.get("category") for value in sample.values() if isinstance(value, Mapping))
    return next((one for one in inside if isinstance(one, str)), "all")


def _prunus(sample: Mapping[str, Any]) -> Mapping[str, Any] | None:
    counts = [one for one in sample.get("token_counts") or [] if one]
    return counts[0].get("prunus") if counts else None  # of choices, each has the same prompt


def _given(sample: Mapping[str, Any]) -> str:
    given = sample.get("filtered_resps", sample.get("resps"))
    while isinstance(given, (list, tuple)) and len(given) == 1:
        given = given[0]
    return given if isinstance(given, str) else json.dumps(given, default=str)


def _text(sample: Mapping[str, Any]) -> str:
    text = sample.get("input")
    if text is None:
        text = next(iter(sample.get("arguments") or []), "")
    return text if isinstance(text, str) else shown(text)


def _sums(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": len(costs)}
    for name in FIGURES:
        values = [cost.get(name) for cost in costs]
        if any(value is None for value in values):
            found[name] = None
        else:
            total = np.sum(np.array(values, dtype=np.float64), axis=0)
            found[name] = total.tolist()
    return found


def image_numbers(samples: Sequence[Sample]) -> list[int]:
    """For each sample which picture it is about: questions that show the same are of one; what is
    unknown stands alone."""
    numbers: dict[str, int] = {}
    names = [one["shows"] or f"unknown {one['number']}" for one in samples]
    return [numbers.setdefault(name, len(numbers)) for name in names]


def fingerprint(samples: Sequence[Sample]) -> str:
    """Equal for the same questions: numbers, texts and true answers."""
    asked = [[one["number"], one["text"], one["answer"]] for one in samples]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
