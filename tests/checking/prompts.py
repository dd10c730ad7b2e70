"""Prompts of the tiny random models, as `prunus.check` takes them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.support.models import Case


def prompts_of(case: Case, *images: int) -> list[dict[str, Tensor]]:
    """One prompt each, without padding, of different lengths."""
    inputs = case.prompts.rows(*(images or (1, 1)))
    return [case.prompts.one(inputs, row, trim=True) for row in range(len(inputs["input_ids"]))]


def failed(report: Any) -> set[str]:
    """The columns that failed in any row."""
    return {
        column
        for row in report.rows
        for column, cell in row.cells.items()
        if cell.status == "failed"
    }
