"""The rows of docs/leaderboard.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BOARD = Path(__file__).resolve().parents[2] / "docs" / "leaderboard.md"


@dataclass(frozen=True)
class Row:
    """A method on a set of questions at a budget ("": none)."""

    data: str
    budget: str
    method: str
    values: Mapping[str, str]

    def cells(self) -> list[str]:
        """Texts for a table of one method."""
        keys = ("right", "to dense", "to random", "all", "KV")
        named = [self.data, self.budget or "its own", f"`{self.method}`"]
        return [*named, *(self.values.get(key, "") for key in keys)]

    @property
    def loss(self) -> float:
        """Points of accuracy beside the dense model."""
        found = re.search(r"[+-]\d+\.\d", self.values["to dense"])
        return float(found[0]) if found else 0.0

    @property
    def certain_loss(self) -> bool:
        """Whether the loss is beyond chance, which the board says in bold."""
        return self.loss < 0 and self.values["to dense"].startswith("**")

    @property
    def to_random(self) -> str:
        """The difference to random, as the board has it."""
        return self.values.get("to random", "")

    @property
    def beats_random(self) -> bool:
        """Whether it is better than random, beyond chance."""
        return self.to_random.startswith("**+")


@cache
def rows() -> tuple[Row, ...]:
    """All rows of methods, in the order of the page."""
    found, data, budget, head = [], "", "", []
    for line in BOARD.read_text("utf-8").splitlines():
        if line.startswith("## "):
            data, head = line[3:].replace("built-in ", ""), []
        elif line.startswith("### "):
            budget = re.match(r"### ([\d.]+ %)", line)[1] if "%" in line.partition(",")[0] else ""
        elif line.startswith("| method |"):
            head = [cell.strip() for cell in line.strip("|").split("|")]
        elif line.startswith("| ") and head and not line.startswith("| ---"):
            cells = [cell.strip() for cell in line[2:].removesuffix("|").split(" | ")]
            values = dict(zip(head, [*cells, *[""] * (len(head) - len(cells))], strict=True))
            method = values["method"].strip("*").partition(" ")[0]
            found.append(Row(data, budget, method, values))
    return tuple(found)
