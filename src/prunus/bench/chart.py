"""The chart of a benchmark: where the time of each method goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunus.analyse.plots import COLOURS, Drawing, save
from prunus.bench.report import Bench, Case
from prunus.bench.splits import PARTS
from prunus.bench.table import title

_COLOURS = dict(zip(PARTS, (*COLOURS[:3], COLOURS[5], COLOURS[4], COLOURS[6]), strict=True))


def draw_chart(bench: Bench, path: Path) -> Path:
    """Write the chart as a PNG: for each case a panel, for each method a bar of the parts of its
    time to the first token, with the ratio to the dense model behind it.

    Raises:
        PrunusError: matplotlib is not installed.
        PrunusFileError: the file cannot be written.
    """
    cases = bench["cases"]
    heights = [sum(not row["refused"] for row in case["rows"]) for case in cases]

    def draw(figure: Any) -> None:
        axes = figure.subplots(len(cases), 1, squeeze=False, height_ratios=[n + 2 for n in heights])
        for axis, case in zip(axes[:, 0], cases, strict=True):
            _panel(axis, case)
        axes[0, 0].legend(
            ncols=len(PARTS), loc="lower left", bbox_to_anchor=(0, 1.12), frameon=False
        )

    return save(Drawing(9.5, 0.9 + sum(0.34 * n + 0.9 for n in heights), draw), path)


def _panel(axis: Any, case: Case) -> None:
    rows = [row for row in case["rows"] if not row["refused"]]
    longest = max(row["first"][1] for row in rows)
    for place, row in enumerate(rows):
        left, whole = 0.0, sum(row["parts"][part][1] for part in PARTS)
        # medians of parts need not add up to the median of the whole, which the bar is to be
        share = row["first"][1] / whole
        for part in PARTS:
            width = 1e3 * row["parts"][part][1] * share
            label = part if place == 0 else None
            axis.barh(place, width, left=left, color=_COLOURS[part], height=0.72, label=label)
            left += width
        ratio = row["first_ratio"]["dense"]
        told = "" if row["name"] == "dense" or ratio is None else f"   {ratio[1]:.2f} of dense"
        axis.text(left + 6 * longest, place, f"{left:.0f} ms{told}", va="center")
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 1e3 * longest * 1.28)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("time to the first token, ms (median)")
    axis.set_title(title(case), loc="left", fontsize=8.5)
