"""What a comparison is, as plain JSON values: everything that was measured, in one object.

``comparison.json`` holds it, and the page and the tables are made of nothing else. Shares and
accuracies lie in 0..1, tokens are visual ones, and boxes are in pixels of the picture that stands
beside them.
"""

from __future__ import annotations

from typing import Any, TypedDict

#: The version of this form; a file of another one is refused.
FORMAT = 1


class Interval(TypedDict):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class Against(Interval):
    """Mean paired difference to another row, clustered by image; two-sided ``p``, the same
    ``p_corrected`` (Holm, over all methods at one budget of a run; None where it is none of these);
    questions ``lost`` (right there, wrong here) and ``won``, means over seeds."""

    p: float
    p_corrected: float | None
    lost: float
    won: float


class Time(TypedDict):
    """Seconds of a prefill with its vision tower as a share of the dense model's, at batch 1:
    quartiles over ``rounds`` rounds in which both were timed."""

    median: float
    q1: float
    q3: float
    rounds: int


class Cost(TypedDict):
    """Shares of what the dense model needs; None where that was not counted or timed.
    ``llm_flops`` are those of the language model, ``flops`` all: tower, projector, selector."""

    llm_flops: float | None
    flops: float | None
    kv: float | None
    time: Time | None


class Head(TypedDict):
    """Which row it is.

    ``key`` is unique in its run (``divprune|true|0.1111``); ``meaning`` "own": a method that finds
    its own count, or a control that prunes nothing; ``asked``: a share, or a count; ``nominal``:
    the same as visual tokens; ``refused``: why there are no answers, None where there are.
    """

    key: str
    method: str
    meaning: str
    asked: float | None
    nominal: int | None
    refused: str | None


class Row(Head, total=False):
    """One method at one budget on the questions of one run, seeds taken together. Of a refused one
    the :class:`Head` is all; the dense model's is against nothing.

    ``average``, ``kept``, ``resident``: visual tokens per decoder layer, at the last one, and per
    layer in the cache behind the prompt; ``per_layer``: those that each layer sees. ``against``:
    by "dense", "random" and the rival's name. ``metrics``, of a benchmark: what it reports itself,
    and medians of seconds, by name (``accuracy`` is then the mean score of its questions); None
    where it says that there is none.
    """

    average: float
    kept: float
    resident: float
    per_layer: list[float]
    cost: Cost
    seeds: list[int]
    per_seed: list[float]
    accuracy: Interval
    by_type: dict[str, Interval]
    against: dict[str, Against]
    metrics: dict[str, float | None]


class Question(TypedDict):
    """A question about image (or video) number ``image``."""

    image: int
    type: str
    text: str
    answer: str


class _Thumbnails(TypedDict, total=False):
    thumbnails: dict[str, str]


class Scored(TypedDict, total=False):
    """``scores``, by the keys of cells, of benchmarks whose scores of single questions lie between
    0 and 1: a number for each question. What is right is then what has at least half of it."""

    scores: dict[str, list[float]]


class Run(_Thumbnails, Scored):
    """One model on one set: ``tokens`` is the mean number of visual tokens of a question.

    ``answers`` and ``right`` are by the keys of cells, in the order of ``questions_list``: a row's
    key, with ``#seed`` behind it where the method draws lots; of ``right``, a text of 0 and 1.
    ``thumbnails``, which may be missing: small pictures as ``data:`` addresses, by the numbers of
    images whose answers changed.
    """

    id: str
    model: str
    set: str
    kind: str
    questions: int
    images: int
    tokens: float
    types: list[str]
    chance: dict[str, float]
    rival: str | None
    dense: Row
    rows: list[Row]
    questions_list: list[Question]
    answers: dict[str, list[str]]
    right: dict[str, str]


class Shown(TypedDict):
    """What one cell kept of a picture: ``kept`` tokens after each stage, ascending, with the
    decoder ``layers`` (None: before the language model) and a word for each stage; ``scores`` of
    all tokens at the first stage that has some (None where a token has none), and ``into``, for
    methods that merge, the token that stands for each of all at the end (-1: none does)."""

    kept: list[list[int]]
    layers: list[int | None]
    labels: list[str]
    scores: list[float | None] | None
    into: list[int] | None
    answer: str
    right: bool


class Picture(TypedDict):
    """A question with its picture, and what every cell kept of it and answered.

    ``png``: a ``data:`` address of the picture as the model saw it, ``frames`` of ``size`` [width,
    height] beside each other; ``cells``: [left, top, right, bottom, frame] of every visual token in
    pixels of its frame; ``grid``: [frames, rows, columns], None where there are several grids;
    ``question``: index into the run's ``questions_list``; ``dense``: what the unmodified model
    answered; ``shown``: by the keys of rows (of the first seed, where there are several).
    """

    run: str
    image: int
    png: str
    size: list[int]
    frames: int
    grid: list[int] | None
    cells: list[list[float]]
    question: int
    text: str
    answer: str
    dense: str
    shown: dict[str, Shown]


class Facts(TypedDict):
    """What a method is: ``count`` says who decides how many tokens stay ("asked": the budget;
    "schedule": the budget, at several stages; "own": the method; "all": nothing is removed)."""

    summary: str
    paper: str
    place: str
    question: bool
    count: str
    merges: bool
    ours: bool
    control: bool
    composition: bool


class PublishedRow(TypedDict):
    """One line of a published table: None where it has no value; ``flags`` say what is doubtful."""

    budget: float
    method: str
    values: dict[str, float | None]
    source: str
    flags: list[str]


class PublishedTable(TypedDict):
    """Numbers of papers, as they were printed there; none of them is ours."""

    id: str
    title: str
    source: str
    protocol: str
    model: str
    benchmarks: list[str]
    dense: dict[str, float | None]
    rows: list[PublishedRow]
    flags: list[str]


class Made(TypedDict):
    """What made the numbers; ``seconds``: of all runs into the store that asked something, those
    that were stopped too."""

    command: str
    versions: dict[str, str]
    device: str
    threads: int
    dtype: dict[str, str]
    seconds: float
    date: str
    settings: dict[str, Any]


class MadeApart(Made):
    """Of several comparisons that were joined: what they have in common, and what made each."""

    apart: list[Made]


class Comparison(TypedDict):
    """All of it. ``budgets``: those asked for, as shares or counts; ``notes``: how intervals and
    corrections were made, and what was refused or left out."""

    format: int
    title: str
    made: Made
    notes: list[str]
    budgets: list[float]
    methods: dict[str, Facts]
    runs: list[Run]
    pictures: list[Picture]
    published: list[PublishedTable]
