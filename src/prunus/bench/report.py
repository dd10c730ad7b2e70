"""What a benchmark is, as plain JSON values: everything that was measured, in one object."""

from __future__ import annotations

from typing import Any, TypedDict

#: The version of this form.
FORMAT = 1

Quartiles = list[float]
"""Lower quartile, median, upper quartile."""


class Ratios(TypedDict):
    """Quartiles of ratios within a round: to the ``dense`` model, to the ``told`` one (the same
    tokens in the same engine, without choosing), and to the ``bare`` work: of what stands between
    tower and head, to a plain loop over the layers; of a further token, to a step of the unpruned
    model on a plain cache with as many tokens. None where there is none."""

    dense: Quartiles | None
    told: Quartiles | None
    bare: Quartiles | None


class Length(TypedDict):
    """An answer of so many ``tokens``: seconds from pixels to its last one, tokens per second of
    the whole batch, ratio to the dense model."""

    tokens: int
    seconds: Quartiles
    per_second: float
    ratio: Quartiles


class Row(TypedDict, total=False):
    """One method, or the dense model.

    ``tokens``: visual ones, as in ``run.report()``; ``kv_bytes`` of the cache behind the prompt, of
    the whole batch: ``measured`` and ``counted``; ``peak_bytes``: largest allocation of a prompt
    beyond the weights; ``parts``: seconds of each part of the time to the first token; ``token``:
    seconds of each further token; ``rounds``: what all of it is made of, in seconds; ``refused``:
    why there is nothing; ``no_bare``: why there is no plain loop.
    """

    name: str
    refused: str | None
    tokens: dict[str, float]
    flops_ratio: float | None
    kv_bytes: dict[str, float | None]
    peak_bytes: int
    block_seconds: float
    parts: dict[str, Quartiles]
    first: Quartiles
    token: Quartiles | None
    lengths: list[Length]
    first_ratio: Ratios
    token_ratio: Ratios
    no_bare: str | None
    rounds: dict[str, Any]


class Case(TypedDict):
    """One model, batch size and attention: all rows were timed in turn, in one run. ``noise``:
    width of the quartiles of the dense model's time to the first token, as a share of it."""

    model: str
    about: dict[str, Any]
    parameters: int
    batch: int
    attention: str
    prompt_tokens: int
    visual_tokens: float
    decode: Quartiles | None
    noise: float
    rows: list[Row]


class Bench(TypedDict):
    """All of it. ``published``: figures of papers beside those of this run."""

    format: int
    made: dict[str, Any]
    notes: list[str]
    cases: list[Case]
    published: list[dict[str, Any]]
