"""What a check found: a table of trials and columns, and what it was done with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "failed", "refused", "skipped"]

#: Columns of the table, with what each means.
COLUMNS: Mapping[str, str] = {
    "neutral": "at the setting that changes nothing, logits equal the unmodified model's",
    "batch": "rows of a left-padded batch equal the rows alone, selections included",
    "prefill": "logits of the prompt equal the unmodified model's that does not see what went",
    "decode": "so do those of the answer's tokens, on the cache",
    "cache": "each layer's cache holds what was promised, and says the unpruned length",
    "exit": "nothing is left on the model, and it runs as before, bit by bit",
}


@dataclass(frozen=True)
class Cell:
    """One check of one trial.

    Attributes:
        status: "ok"; "failed"; "refused" by prunus, with a reason; "skipped": cannot be checked.
        error: largest difference of logits, as a share of their scale; None where none is measured.
        note: why, in one line, or what else is worth knowing.
    """

    status: Status
    error: float | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.error is None:
            return "-" if self.status == "skipped" else self.status
        number = f"{self.error:.1e}" if self.error else "0"
        return number if self.status == "ok" else f"{self.status} {number}"


@dataclass(frozen=True)
class Row:
    """One trial: a method at a setting, and a cell for each of :data:`COLUMNS`."""

    method: str
    setting: str
    cells: Mapping[str, Cell]

    @property
    def status(self) -> Status:
        """What the row comes to: "failed" if anything did, "refused" if everything was."""
        found = [cell.status for cell in self.cells.values()]
        if "failed" in found:
            return "failed"
        return "refused" if found and set(found) <= {"refused", "skipped"} else "ok"

    @property
    def notes(self) -> list[str]:
        """What its cells have to say, each once, with the columns that say it."""
        said: dict[str, list[str]] = {}
        for column, cell in self.cells.items():
            if cell.note:
                said.setdefault(cell.note, []).append(column)
        every = len(self.cells)
        return [
            note if len(columns) == every else f"{', '.join(columns)}: {note}"
            for note, columns in said.items()
        ]


@dataclass(frozen=True)
class CheckReport:
    """What :func:`prunus.check` found.

    Attributes:
        rows: one for each method and setting that was tried.
        environment: versions, platform, model, attention backend, dtype, device.
        tolerance: largest allowed difference of logits, as a share of the largest logit.
        spread: how far the unmodified model is from itself under an equal mask, in that measure.
        seconds: how long the check took.
    """

    rows: Sequence[Row]
    environment: Mapping[str, str]
    tolerance: float
    spread: float
    seconds: float = 0.0
    notes: Sequence[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong: everything is right, or refused with a reason."""
        return all(row.status != "failed" for row in self.rows)

    @property
    def remarks(self) -> list[str]:
        """What rows have to say, each once, behind the names of the methods that say it."""
        said: dict[str, list[str]] = {}
        for row in self.rows:
            for note in row.notes:
                said.setdefault(note, []).append(row.method)
        return [f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in said.items()]

    @property
    def summary(self) -> str:
        """One line: how many trials are right, refused and wrong."""
        count = dict.fromkeys(("ok", "refused", "failed"), 0)
        for row in self.rows:
            count[row.status] += 1
        parts = [f"{count['ok']} right"]
        parts += [f"{count['refused']} refused"] * bool(count["refused"])
        parts += [f"{count['failed']} WRONG"] * bool(count["failed"])
        return (
            f"{', '.join(parts)}; tolerance {self.tolerance:.1e} of the largest logit, "
            f"{self.seconds:.0f} s"
        )

    def facts(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "ok": self.ok,
            "environment": dict(self.environment),
            "tolerance": self.tolerance,
            "spread": self.spread,
            "seconds": round(self.seconds, 1),
            "notes": list(self.notes),
            "rows": [
                {
                    "method": row.method,
                    "setting": row.setting,
                    "status": row.status,
                    "checks": {column: _cell(cell) for column, cell in row.cells.items()},
                }
                for row in self.rows
            ],
        }

    def markdown(self) -> str:
        """One block for a bug report."""
        lines = ["## prunus check", ""]
        lines += [f"* {name}: {value}" for name, value in self.environment.items()]
        lines += [f"* tolerance: {self.tolerance:.1e} of the largest logit"]
        lines += [f"* the unmodified model under an equal mask differs by: {self.spread:.1e}"]
        lines += [f"* {note}" for note in self.notes]
        lines += ["", "| " + " | ".join(["method", "setting", *COLUMNS, "notes"]) + " |"]
        lines += ["|" + "---|" * (len(COLUMNS) + 3)]
        for row in self.rows:
            cells = [str(row.cells.get(column, "")) for column in COLUMNS]
            texts = [row.method, row.setting, *cells, "; ".join(row.notes)]
            lines.append("| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |")
        return "\n".join([*lines, "", self.summary])

    def __str__(self) -> str:
        head = ["method", "setting", *COLUMNS]
        table = [head]
        for row in self.rows:
            cells = [str(row.cells.get(column, "")) for column in COLUMNS]
            table.append([row.method, row.setting, *cells])
        widths = [max(len(line[column]) for line in table) for column in range(len(head))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in table
        ]
        return "\n".join([*lines, *self.remarks, *self.notes, self.summary])


def _cell(cell: Cell) -> dict[str, Any]:
    error = cell.error if cell.error is None or math.isfinite(cell.error) else None
    return {"status": cell.status, "error": error, "note": cell.note}
