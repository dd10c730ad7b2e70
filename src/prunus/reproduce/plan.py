"""What a reproduction will do: said before anything is downloaded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TypedDict

from prunus.inference.named import NONE
from prunus.reproduce.formula import formula_columns, why_not_counted
from prunus.reproduce.library import Benchmark, columns
from prunus.reproduce.recipe import Recipe


class Download(TypedDict):
    """Something that has to be there; ``gigabytes`` None where nobody knows."""

    what: str
    kind: str
    gigabytes: float | None
    how_known: str


class Asked(TypedDict):
    """A column that lmms-eval measures."""

    column: str
    task: str
    questions: int
    split: str
    prompt: str
    note: str


class Plan(TypedDict):
    """All of it; ``hours`` None where nobody knows how long a question takes."""

    recipe: str
    title: str
    model: str
    protocol: str
    rows: list[str]
    asked: list[Asked]
    counted: list[str]
    downloads: list[Download]
    gigabytes: float
    hours: float | None
    hours_how: str
    commands: list[str]
    not_measured: dict[str, str]
    left_out: list[str]
    notes: list[str]


def task_columns(recipe: Recipe, environment: Mapping[str, str]) -> list[Benchmark]:
    """Columns that lmms-eval can measure, with what ``environment`` has."""
    known = columns(recipe.table["benchmarks"])
    return [one for one in known if one.kind == "task" and not _lacks(one, environment)]


def not_measured(recipe: Recipe, environment: Mapping[str, str]) -> dict[str, str]:
    """Columns that cannot be measured, and why; not those that follow from others."""
    found = {}
    counted = formula_columns(recipe)
    for one in columns(recipe.table["benchmarks"]):
        if one.kind in ("closed", "clock") or (one.kind == "formula" and one.name not in counted):
            timed = one.kind == "clock" and recipe.bench is not None
            why = why_not_counted(recipe, one.name) if one.kind == "formula" else one.note
            found[one.name] = why + (f": {_bench(recipe)}" if timed else "")
        elif one.kind == "task" and _lacks(one, environment):
            found[one.name] = f"{one.note}: set {one.needs}"
    return found


def _bench(recipe: Recipe) -> str:
    return f"prunus bench --preset {recipe.bench}"


def _lacks(one: Benchmark, environment: Mapping[str, str]) -> bool:
    return bool(one.needs) and not environment.get(one.needs)


def make_plan(recipe: Recipe, model: str | None, environment: Mapping[str, str]) -> Plan:
    """The plan for the checkpoint ``model`` (default: the paper's).

    Args:
        recipe: what is to be reproduced.
        model: a folder or name of weights that are there already.
        environment: variables, of which some are keys of those who score answers.
    """
    tasks = task_columns(recipe, environment)
    if model is None and recipe.model.why_not:
        tasks = []
    arms = [arm for arm in recipe.arms() if not arm.needs]
    questions = sum(one.questions for one in _once(tasks))
    seconds = recipe.model.seconds
    downloads = _downloads(recipe, model, tasks)
    return Plan(
        recipe=recipe.name,
        title=recipe.table["title"],
        model=model or recipe.model.checkpoint,
        protocol=recipe.protocol,
        rows=[f"{arm.row} {arm.budget:g}: {arm.words}" if arm.budget else arm.row for arm in arms],
        asked=[
            Asked(
                column=one.name,
                task=one.task,
                questions=one.questions,
                split=one.split,
                prompt=one.prompt,
                note=one.note,
            )
            for one in tasks
        ],
        counted=formula_columns(recipe),
        downloads=downloads,
        gigabytes=round(sum(one["gigabytes"] or 0 for one in downloads), 1),
        hours=round(questions * len(arms) * seconds / 3600, 1) if seconds and tasks else None,
        hours_how=f"{len(arms)} rows x {questions} questions; a question: {recipe.model.speed}",
        commands=_commands(recipe, model, tasks),
        not_measured=not_measured(recipe, environment),
        left_out=_left_out(recipe, model),
        notes=[*recipe.table["flags"], *recipe.notes],
    )


def _once(tasks: Sequence[Benchmark]) -> list[Benchmark]:
    """Each task once: two columns may come from one."""
    return list({one.task: one for one in tasks}.values())


def _downloads(recipe: Recipe, model: str | None, tasks: Sequence[Benchmark]) -> list[Download]:
    found = []
    if model is None and tasks:
        one = recipe.model
        found.append(
            Download(what=one.checkpoint, kind="model", gigabytes=one.gigabytes, how_known=one.size)
        )
    for task in _once(tasks):
        size = None if task.megabytes is None else round(task.megabytes / 1000, 2)
        found.append(
            Download(what=task.data, kind="questions", gigabytes=size, how_known=task.size)
        )
    return found


def _commands(recipe: Recipe, model: str | None, tasks: Sequence[Benchmark]) -> list[str]:
    """What measures each row by itself, beside the dense model; the whole recipe does the same, one
    task after another. A method with a comma in it would be two there."""
    timed = [_bench(recipe)] if recipe.bench is not None else []
    if not tasks:
        return timed
    names = ",".join(one.task for one in _once(tasks))
    found = []
    for arm in recipe.arms():
        if arm.needs or arm.method == NONE or "," in arm.method:
            continue
        words = ["prunus", "eval", "--model", model or recipe.model.checkpoint, "--tasks", names]
        words += ["--method", arm.method]
        if arm.keep is not None:
            words += ["--keep", arm.keep]
        if arm.meaning == "true":
            words += ["--budget", "true"]
        found.append(shlex.join(words))
    return found + timed


def _left_out(recipe: Recipe, model: str | None) -> list[str]:
    found = []
    if model is None and recipe.model.why_not:
        found.append(f"{recipe.model.name}: {recipe.model.why_not}")
    pairs = [(arm.row, arm.needs) for arm in recipe.arms() if arm.needs]
    pairs += [(one.row, one.why) for one in recipe.absent()]
    return found + [f"{row}: {why}" for row, why in dict.fromkeys(pairs)]
