"""CLSE's own ablations in small: where and how much to prune, its parameters, and its rivals."""

from __future__ import annotations

from collections.abc import Sequence

from prunus.analyse.ablations import BUDGETS, Cell, cells
from prunus.analyse.context import Context, Step
from prunus.analyse.measure import DENSE, Measured, measure, pooled, row
from prunus.analyse.result import Picture, Result, Row, Table
from prunus.analyse.sweep_figure import Quantity, draw_sweeps, text_of

TITLE = "Where to prune, how much, and by which score"


def work(context: Context) -> int:
    """Prompts that :func:`run` will put through the model."""
    settings = sum(len(cell.settings) for cell in cells(context.depth, context.seed))
    return (1 + settings) * len(context.data.queries)


def run(context: Context, step: Step) -> Result:
    """All sweeps, each against the dense model."""
    dense = row(context, measure(context, DENSE, step))
    rows: list[Row] = []
    for cell in cells(context.depth, context.seed):
        found = pooled([measure(context, setting, step) for setting in cell.settings])
        rows.append(_row(context, cell, found))
    count = len(context.data.queries)
    about = (
        f"{context.measure_name.capitalize()} with Wilson's interval, divergence of the first "
        f"answer token from dense, and true budgets; {count} questions per row"
    )
    lines: list[Row] = [{"sweep": "dense", **dense}, *rows]
    shown = f"Agreement with the dense model's answers under every setting, {count} prompts"
    answers = Quantity("agreement", "agreement, %", 100.0, 1.0)
    if context.known:
        shown = (
            f"Accuracy minus that of the dense model under every setting, {count} questions (no "
            "band: no answer became right or wrong)"
        )
        answers = Quantity("difference", "accuracy against dense, points", 100.0, 0.0)
    nats = Quantity("divergence", "KL divergence, nats", 1.0, None)
    pictures = [
        Picture("sweep", f"{shown}, 95 % intervals", draw_sweeps(rows, answers)),
        Picture(
            "sweep-divergence",
            f"Divergence of the first answer token from the dense model's, {count} questions, 95 % "
            "intervals over images",
            draw_sweeps(rows, nats),
        ),
    ]
    table = Table("sweep", about, lines)
    return Result("sweep", TITLE, _facts(rows, dense, context), [table], pictures)


def _row(context: Context, cell: Cell, found: Measured) -> Row:
    return {
        "sweep": cell.sweep,
        "setting": cell.place,
        "layer": cell.layer,
        "keep": cell.keep,
        **row(context, found),
    }


#: Sweeps of which the best and the worst setting is told in words.
_RANGES = {
    "cutoff": "cut-off r of CLSE",
    "temperature": "temperature of the hybrid",
    "reference, global": "layer of CLSE's cut, reference layer 0",
    "reference, adjacent": "layer of CLSE's cut, reference the layer before",
}


def _facts(rows: Sequence[Row], dense: Row, context: Context) -> list[str]:
    name = context.measure_name
    value, low, high = (100 * dense[f"{name}{end}"] for end in ("", "_low", "_high"))
    facts = [f"Dense {name}: {value:.1f} % [{low:.1f}, {high:.1f}]."]
    column = "difference" if context.known else name
    unit = "points against dense" if context.known else "% of answers as dense"
    for keep in BUDGETS:
        own = [line for line in rows if line["keep"] == keep]
        listed = "; ".join(
            f"{line['setting']} {_points(line, column)}, KL {line['divergence']:.3f}"
            for line in own
            if line["sweep"] == "score"
        )
        facts.append(f"{keep:.1%} kept at layer 1 by each score ({unit}): {listed}.")
        for sweep, words in _RANGES.items():
            by_divergence = sorted(
                (line for line in own if line["sweep"] == sweep),
                key=lambda line: line["divergence"],
            )
            ends = (
                f"KL {kind} at {text_of(line['setting'])} ({line['divergence']:.3f}; "
                f"{_points(line, column)})"
                for kind, line in (("least", by_divergence[0]), ("most", by_divergence[-1]))
            )
            facts.append(f"{keep:.1%} kept, {words}: {', '.join(ends)}.")
    return facts


def _points(line: Row, column: str) -> str:
    sign = "+" if column == "difference" else ""
    value, low, high = (100 * line[f"{column}{end}"] for end in ("", "_low", "_high"))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
