"""All analyses by name, and one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from prunus.analyse import fusion, knockout, sinks, spectral, sweep
from prunus.analyse.context import Context, Step
from prunus.analyse.measure import DENSE, measure
from prunus.analyse.plots import check_matplotlib
from prunus.analyse.result import Result
from prunus.errors import PrunusError


class Analysis(NamedTuple):
    """``work`` says how many prompts ``run`` will report to its ``step``."""

    work: Callable[[Context], int]
    run: Callable[[Context, Step], Result]


ANALYSES: dict[str, Analysis] = {
    "knockout": Analysis(knockout.work, knockout.run),
    "sinks": Analysis(sinks.work, sinks.run),
    "fusion": Analysis(fusion.work, fusion.run),
    "spectral": Analysis(spectral.work, spectral.run),
    "sweep": Analysis(sweep.work, sweep.run),
}


def total_work(context: Context, names: Sequence[str]) -> int:
    """Prompts that :func:`analyse` will report to its ``step``."""
    return len(context.data.queries) + sum(ANALYSES[name].work(context) for name in names)


def analyse(
    context: Context,
    names: Sequence[str] = tuple(ANALYSES),
    step: Step | None = None,
    done: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Run the analyses called ``names``; what they share is measured once.

    Args:
        context: model and questions.
        names: keys of :data:`ANALYSES`.
        step: called with a number of prompts after each call of the model.
        done: called with each result as soon as it is there.

    Raises:
        PrunusError: an unknown or repeated name, or matplotlib is not installed.
    """
    unknown = [name for name in names if name not in ANALYSES]
    if unknown:
        raise PrunusError(f"unknown analysis {unknown[0]!r}: there are {', '.join(ANALYSES)}")
    if len(set(names)) != len(names) or not names:
        raise PrunusError("name one or more analyses, each once")
    check_matplotlib()
    report: Step = step or (lambda count: None)
    measure(context, DENSE, report)
    results = []
    for name in names:
        results.append(ANALYSES[name].run(context, report))
        if done is not None:
            done(results[-1])
    return results
