"""What tuning finds, as plain JSON values: ``tune.json`` holds it."""

from __future__ import annotations

from typing import Any, TypedDict

from prunus.compare.contract import Interval, Made

#: The version of this form.
FORMAT = 1

SHOWN, NOT_SHOWN, MISSED = "shown", "not shown with these data", "missed"
PRUNE, DENSE = "prune", "leave it dense"


class Side(TypedDict):
    """One of the two sides of the questions."""

    questions: int
    images: int


class Data(TypedDict):
    """The questions: their ``file``; ``answers`` "given", or "dense": those of the dense model;
    ``left_out``: lines that could not be used, and why."""

    file: str
    answers: str
    tuning: Side
    held_out: Side
    left_out: list[str]


class Costing(TypedDict):
    """Shares of what the dense model needs, None where that was not counted or measured; ``time``:
    median of a prefill; ``most_kv``: bytes of the largest prompt."""

    flops: float | None
    kv: float | None
    most_kv: float | None
    time: float | None


class Candidate(TypedDict):
    """One candidate: asked so many tuning ``questions`` in so many ``rounds``; ``loss`` in 0..1
    with bounds that hold for all candidates and rounds at once (Bonferroni), None where it could
    not be asked; ``out``: why it is not the answer, None of the one that was chosen."""

    label: str
    method: str
    keep: float | None
    questions: int
    rounds: int
    loss: Interval | None
    costs: Costing | None
    out: str | None


class Rounded(TypedDict):
    """A round: so many ``candidates`` were asked ``questions``; so many were then ``surely`` out,
    and so many left out because others promised more (``cut``)."""

    questions: int
    candidates: int
    surely: int
    cut: int


class Check(TypedDict):
    """One thing that was wanted, as the held-out questions say it: ``what`` is "loss", "speed-up",
    "kv" or "kv share"; the ``bound`` that was given; the ``value`` with its interval (of KV bytes
    the smallest and the largest prompt's); and a ``verdict``."""

    what: str
    bound: float
    value: float
    low: float
    high: float
    verdict: str


class Timed(TypedDict):
    """Seconds of a prefill with its vision tower, one prompt, in so many ``rounds`` in which both
    were timed; ``speed_up``: median of dense over pruned, with the interval of a median."""

    dense: float
    pruned: float
    speed_up: Interval
    rounds: int


class Held(TypedDict):
    """What the held-out questions say of the one candidate that they were asked under: accuracies
    (of the dense model's own answers: agreement), the paired ``loss``, both with intervals of
    ``level``; ``lost`` and ``won``: questions; ``kv``: bytes of a prompt, smallest to largest, mean
    as value; ``needed``: about how many questions in all would show the largest loss, None where
    none would or none was given; ``earlier``: looks at these questions before."""

    label: str
    questions: int
    images: int
    level: float
    dense: Interval
    pruned: Interval
    loss: Interval
    lost: int
    won: int
    costs: Costing
    time: Timed | None
    kv: Interval | None
    kv_dense: float | None
    tokens: float
    tokens_dense: float
    checks: list[Check]
    needed: int | None
    earlier: list[dict[str, Any]]


class Answer(TypedDict):
    """What to do: ``what`` is "prune" or "leave it dense"; ``verdict`` of pruning; ``why``, in
    words; ``python`` and ``cli``: the line to paste, None where nothing is to be pruned."""

    what: str
    verdict: str | None
    why: str
    label: str | None
    python: str | None
    cli: str | None


class Tuned(TypedDict):
    """All of it."""

    format: int
    made: Made
    model: str
    data: Data
    goal: dict[str, float]
    answer: Answer
    held_out: Held | None
    rounds: list[Rounded]
    candidates: list[Candidate]
    notes: list[str]
