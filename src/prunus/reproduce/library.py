"""What recipes refer to: models, benchmarks and protocols, as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from prunus.errors import unknown
from prunus.families.shapes import DecoderShape

#: What a published column is: a task of lmms-eval, something that follows from sizes and counts, a
#: time, something that follows from other columns, or something that cannot be measured here.
Kind = Literal["task", "formula", "clock", "printed", "closed"]


@dataclass(frozen=True)
class PaperModel:
    """A model of a paper.

    Attributes:
        name: as in recipes.
        checkpoint: name on the Hugging Face hub.
        type: ``model_type`` of its configuration.
        gigabytes, size: what has to be downloaded (None: not known), and how that is known.
        tokens: visual tokens of an input, None where they depend on the image.
        decoder: sizes of its language model.
        seconds, speed: of one question at batch 1 (None: not known), and how that is known.
        why_not: why the checkpoint cannot be loaded; empty if it can.
    """

    name: str
    checkpoint: str
    type: str
    gigabytes: float | None
    size: str
    tokens: int | None
    decoder: DecoderShape
    seconds: float | None
    speed: str
    why_not: str


@dataclass(frozen=True)
class Benchmark:
    """A column of published tables.

    Attributes:
        name, kind: see :data:`Kind`.
        note: how it differs from what papers do, or why it cannot be measured.
        task, metrics, scale: of lmms-eval; the metrics are added up, times ``scale``.
        questions, split, prompt: how many, of which part, and what stands behind each.
        data, megabytes, size: what has to be downloaded (None: not known), and how that is known.
        needs: an environment variable without which nobody scores the answers.
    """

    name: str
    kind: Kind
    note: str
    task: str = ""
    metrics: tuple[str, ...] = ()
    scale: float = 1.0
    questions: int = 0
    split: str = ""
    prompt: str = ""
    data: str = ""
    megabytes: float | None = None
    size: str = ""
    needs: str = ""


def read(name: str) -> Any:
    """A data file of this package."""
    return json.loads(files("prunus.reproduce").joinpath(name).read_text("utf-8"))


@cache
def models() -> dict[str, PaperModel]:
    """All models by name."""
    found = {}
    for name, facts in read("models.json").items():
        decoder = DecoderShape(**facts["decoder"])
        found[name] = PaperModel(name=name, **{**facts, "decoder": decoder})
    return found


@cache
def benchmarks() -> dict[str, Benchmark]:
    """All columns by name."""
    return {
        name: Benchmark(name=name, **{**facts, "metrics": tuple(facts.get("metrics", ()))})
        for name, facts in read("benchmarks.json").items()
    }


@cache
def protocols() -> dict[str, str]:
    """How answers are asked for, in words, by name."""
    return dict(read("protocols.json"))


def columns(names: Sequence[str]) -> list[Benchmark]:
    """The columns called ``names``.

    Raises:
        PrunusError: an unknown name.
    """
    known = benchmarks()
    for name in names:
        if name not in known:
            raise unknown("benchmark", name, list(known))
    return [known[name] for name in names]
