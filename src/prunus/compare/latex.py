"""The tables of a comparison in LaTeX: a narrow one for each budget, a wide one of everything."""

from __future__ import annotations

from collections.abc import Sequence

from prunus.compare import cells
from prunus.compare.contract import Comparison, Row, Run
from prunus.compare.groups import groups_of
from prunus.compare.tables import about

_NARROW = ("method", "right, % [95 %]", "to dense", "LLM", "all", "KV")
_WIDE = (
    "method", "budget", "asked", "average", "cache", "LLM", "all", "KV", "time",
    "right, % [95 %]", "to dense", "to random", "to {rival}",
)  # fmt: skip

_LEGEND = (
    "LLM, all: FLOPs of the prefill, of the language model and of everything; KV: bytes of the "
    "cache; time: of a prefill with its tower; in percent of the dense model's. Differences in "
    f"points; *: p < {cells.LEVEL:g} after Holm's correction."
)


def latex(comparison: Comparison) -> str:
    """A ``table`` for each run and budget that fits the width of a page; needs no package."""
    parts = _comments(comparison)
    for run in comparison["runs"]:
        for group in groups_of(run):
            heads = (
                (group.true, f"{group.name} (average over all layers)"),
                (group.nominally, f"{group.name} (as published)"),
                (group.own, "without a budget"),
            )
            for lines, head in heads:
                if lines:
                    rows = [_narrow(row) for row in (run["dense"], *(one.row for one in lines))]
                    caption = f"{run['model']} on {run['set']}, {head}. {about(run)} {_LEGEND}"
                    parts.append(_table(caption, _NARROW, rows, "table", r"\small"))
    return "\n\n".join(parts) + "\n"


def wide_latex(comparison: Comparison) -> str:
    """All rows of a run in one ``sidewaystable``, which is of the package rotating."""
    parts = [*_comments(comparison), "% \\usepackage{rotating}"]
    for run in comparison["runs"]:
        head = [one.format(rival=run["rival"]) for one in _WIDE]
        rows = [_wide(row, run) for row in (run["dense"], *run["rows"])]
        if not run["rival"]:
            head, rows = head[:-1], [row[:-1] for row in rows]
        caption = f"{run['model']} on {run['set']}. {about(run)} {_LEGEND}"
        parts.append(_table(caption, head, rows, "sidewaystable", r"\scriptsize"))
    return "\n\n".join(parts) + "\n"


def _comments(comparison: Comparison) -> list[str]:
    texts = (comparison["title"], comparison["made"]["command"])
    return ["% " + " ".join(text.splitlines()) for text in texts]


def _narrow(row: Row) -> list[str]:
    cost = row["cost"]
    return [
        cells.named(row),
        cells.percent(row["accuracy"]),
        cells.points(row["against"].get("dense")),
        *(cells.share(one) for one in (cost["llm_flops"], cost["flops"], cost["kv"])),
    ]


def _wide(row: Row, run: Run) -> list[str]:
    budget = "" if row["method"] == "dense" else row["meaning"]
    asked = "" if row["nominal"] is None else str(row["nominal"])
    if row["refused"] is not None:
        asked = "" if row["asked"] is None else f"{row['asked']:.4g}"
        why = "failed" if row["refused"].startswith("failed:") else "refused"
        return [cells.named(row), budget, asked, why, *[""] * (len(_WIDE) - 4)]
    cost = row["cost"]
    return [
        cells.named(row),
        budget,
        asked,
        f"{row['average']:.1f}",
        f"{row['resident']:.1f}",
        *(cells.share(one) for one in (cost["llm_flops"], cost["flops"], cost["kv"])),
        cells.seconds(row),
        cells.percent(row["accuracy"]),
        *(cells.points(row["against"].get(one or "")) for one in ("dense", "random", run["rival"])),
    ]


def _table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], kind: str, size: str
) -> str:
    return "\n".join(
        [
            rf"\begin{{{kind}}}",
            rf"\centering{size}\setlength{{\tabcolsep}}{{4pt}}",
            rf"\caption{{{_tex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\hline",
            " & ".join(map(_tex, head)) + r" \\",
            r"\hline",
            *(" & ".join(map(_tex, row)) + r" \\" for row in rows),
            r"\hline",
            r"\end{tabular}",
            rf"\end{{{kind}}}",
        ]
    )


def _tex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
    }
    return "".join(special.get(sign, f"\\{sign}" if sign in "&%$#_{}" else sign) for sign in text)
