"""What the training reports of both built-in models show alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def percent(cell: dict[str, float]) -> str:
    """A share in percent with its interval."""
    return f"{100 * cell['accuracy']:.1f} ({100 * cell['low']:.1f}-{100 * cell['high']:.1f})"


def curve_table(curve: Sequence[dict[str, Any]], shown: Sequence[str]) -> str:
    """The training log as a table; ``shown`` are the read-outs worth a column's words."""
    lines = [
        "| stage | step | minutes | canvases | loss | read-out |",
        "|---|---|---|---|---|---|",
    ]
    for row in curve:
        words = ", ".join(f"{k} {100 * row[k]:.0f}" for k in shown if k in row)
        lines.append(
            f"| {row['stage']} | {row['step']} | {row['minutes']:.1f} | {row['canvases']} "
            f"| {row['loss']:.3f} | {words} |"
        )
    return "\n".join(lines)
