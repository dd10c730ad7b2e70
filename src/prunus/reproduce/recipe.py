"""Recipes: which method at which budget stands for which published row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from prunus.compare.contract import PublishedRow, PublishedTable
from prunus.compare.published import published_tables
from prunus.errors import PrunusError, unknown
from prunus.inference.named import NONE, parse
from prunus.method.budget import Meaning, Unit
from prunus.reproduce.library import PaperModel, models, protocols, read

#: What published budgets count.
Counts = Literal["tokens", "share", "frame"]

#: Frames, and tokens of each, of the video tables.
FRAMES, EACH = 64, 169
DENSE = "dense"


@dataclass(frozen=True)
class Small:
    """The built-in ``model`` and questions (``data``) that stand for those of the paper."""

    model: str
    data: str


@dataclass(frozen=True)
class Arm:
    """A line that is measured.

    Attributes:
        row, budget: the published line; of the dense model :data:`DENSE` and 0.
        method: as :mod:`prunus.inference.named` reads it; "none" for the dense model.
        keep: what it is asked to keep, None where the name says it or it finds its own count.
        meaning: what ``keep`` counts.
        note: how it stands for the published line.
        needs: why it cannot be measured as it is; empty if it can.
    """

    row: str
    budget: float
    method: str
    keep: str | None
    meaning: Meaning = "nominal"
    note: str = ""
    needs: str = ""

    @property
    def words(self) -> str:
        """What ``--method`` and ``--keep`` are, in one text that tells arms apart."""
        if self.keep is None:
            return self.method
        true = " true" if self.meaning == "true" else ""
        return f"{self.method} keep={self.keep}{true}"


@dataclass(frozen=True)
class Absent:
    """A published line that cannot be measured, and why."""

    row: str
    budget: float
    why: str


@dataclass(frozen=True)
class Recipe:
    """How a published table is measured again.

    Attributes:
        name: of the recipe.
        table: what was published.
        model: of the paper.
        summary: what the table is about, in a few words.
        protocol: name of a protocol.
        budget: what published budgets count.
        small: what stands for the model of the paper.
        text: text tokens of a prompt, where costs are counted.
        bench: preset of ``prunus bench`` that takes the times of the table.
        notes: what is known to be wrong or open, besides the flags of the table.
        methods: how prunus does each published method: parts of the recipe's file.
        also: further readings of some of them.
    """

    name: str
    table: PublishedTable
    model: PaperModel
    summary: str
    protocol: str
    budget: Counts
    small: Small
    text: int | None
    bench: str | None
    notes: Sequence[str]
    methods: Mapping[str, Mapping[str, Any]]
    also: Mapping[str, Sequence[Mapping[str, Any]]]

    def arms(self) -> list[Arm]:
        """What is measured, the dense model first."""
        found = [Arm(DENSE, 0.0, NONE, None)]
        for row in self.table["rows"]:
            for entry in self._entries(row):
                if "method" in entry:
                    found.append(self._arm(row, entry))
        return found

    def absent(self) -> list[Absent]:
        """Published lines that nothing stands for."""
        return [
            Absent(row["method"], row["budget"], entry["why_not"])
            for row in self.table["rows"]
            for entry in self._entries(row)
            if "why_not" in entry
        ]

    def published(self, arm: Arm) -> PublishedRow | None:
        """The line that ``arm`` stands for; None for the dense model."""
        for row in self.table["rows"]:
            if (row["method"], row["budget"]) == (arm.row, arm.budget):
                return row
        return None

    def smaller(self, arm: Arm) -> Arm:
        """``arm`` for the built-in model: the same share of the tokens, layers that it has."""
        row = self.published(arm)
        if row is None:
            return arm
        for entry in self._entries(row):
            if "small" in entry and self._arm(row, entry).method == arm.method:
                arm = replace(arm, method=entry["small"])
        if arm.keep is None or self.budget == "share":
            return arm
        if self.budget == "frame":
            return replace(arm, keep=f"{arm.budget / EACH:.4g}")
        tokens = self.model.tokens or 0
        alike = self.small.model == "tiny-llava" and tokens == 576
        return arm if alike else replace(arm, keep=f"{int(arm.keep) / tokens:.4g}")

    def _entries(self, row: PublishedRow) -> Iterator[Mapping[str, Any]]:
        yield self.methods[row["method"]]
        yield from self.also.get(row["method"], ())

    def _arm(self, row: PublishedRow, entry: Mapping[str, Any]) -> Arm:
        asked = f"{row['budget']:g}"
        method = entry["method"].replace("{budget}", asked)
        keep = entry.get("keep", entry.get("keeps", {}).get(asked, asked))
        if keep == asked and self.budget == "frame" and _unit(method) != "frame":
            keep = f"{FRAMES * row['budget']:g}"
        return Arm(
            row["method"],
            row["budget"],
            method,
            keep,
            entry.get("budget", "nominal"),
            entry.get("note", ""),
            entry.get("needs", ""),
        )


def _unit(method: str) -> Unit:
    last = parse(method)[-1]
    return last.make().unit


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes by name, in the order of their papers.

    Raises:
        PrunusError: one that does not fit its table.
    """
    folder = files("prunus.reproduce").joinpath("recipes")
    names = [one.name.removesuffix(".json") for one in folder.iterdir()]
    tables = {table["id"]: table for table in published_tables()}
    return {name: _recipe(name, tables) for name in sorted(names, key=_order)}


def find_recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        PrunusError: there is none; the message lists those that are.
    """
    known = recipes()
    if name not in known:
        raise unknown("recipe", name, list(known), {k: one.summary for k, one in known.items()})
    return known[name]


def with_methods(recipe: Recipe, uses: Sequence[str]) -> Recipe:
    """The recipe with other methods for some published ones: ``"StepPrune=stepwise:selector=D"``.

    Raises:
        PrunusError: no such published method, or no such method.
    """
    methods = dict(recipe.methods)
    for use in uses:
        row, equals, method = use.partition("=")
        if not equals or row not in methods:
            raise PrunusError(
                f"--use {use!r}: give PUBLISHED=METHOD, PUBLISHED one of {', '.join(methods)}"
            )
        parse(method)
        kept = {key: methods[row][key] for key in ("keep", "keeps") if key in methods[row]}
        methods[row] = {"method": method, "note": "as given with --use", **kept}
    return replace(recipe, methods=methods)


def _order(name: str) -> tuple[str, int, str]:
    """``clse-10`` behind ``clse-9``."""
    paper, _, rest = name.partition("-")
    number = rest.partition("-")[0]
    return paper, int(number) if number.isdigit() else 99, rest


def _recipe(name: str, tables: Mapping[str, PublishedTable]) -> Recipe:
    found = read(f"recipes/{name}.json")
    place = f"recipe {name}"
    if found["published"] not in tables:
        raise PrunusError(f"{place}: no published table {found['published']!r}")
    table = tables[found["published"]]
    there = {row["method"] for row in table["rows"]}
    if set(found["methods"]) != there or not set(found.get("also", {})) <= there:
        raise PrunusError(f"{place}: its methods are not those of the table: {sorted(there)}")
    if found["model"] not in models() or found["protocol"] not in protocols():
        raise PrunusError(f"{place}: unknown model or protocol")
    return Recipe(
        name=name,
        table=table,
        model=models()[found["model"]],
        summary=found["summary"],
        protocol=found["protocol"],
        budget=found["budget"],
        small=Small(**found["small"]),
        text=found["text"],
        bench=found["bench"],
        notes=found["notes"],
        methods=found["methods"],
        also=found.get("also", {}),
    )
