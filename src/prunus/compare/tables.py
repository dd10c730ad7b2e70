"""The tables of a comparison, one for each run, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prunus.compare.contract import Against, Comparison, Interval, Row, Run

_HEAD = (
    "method", "budget", "tokens asked", "true average", "in cache", "LLM FLOPs", "all FLOPs", "KV",
    "time", "accuracy % [95 %]", "to dense", "to random", "to {rival}",
)  # fmt: skip
#: Below it, a difference is marked.
LEVEL = 0.05

LEGEND = (
    "Tokens are visual ones per image: asked for, and their true average over decoder layers and "
    "per layer of the cache behind the prompt. FLOPs of the prefill, of the language model and of "
    "everything, KV bytes, and the median time of a prefill with its vision tower are shares of "
    "what the dense model needs. Differences are points of accuracy with their 95 % interval, "
    f"clustered by image; * where p < {LEVEL} after Holm's correction over all methods at that "
    "budget. Budget: what the number asked for counts."
)


def markdown(comparison: Comparison) -> str:
    """All runs, each under a heading, with what made them and how to read them."""
    made = comparison["made"]
    lines = [f"# {comparison['title']}", ""]
    for run in comparison["runs"]:
        lines += [f"## {run['model']} on {run['set']}", "", _about(run), ""]
        head = _head(run)
        lines.append(_line(head))
        lines.append(_line(["---", "---", *["---:"] * (len(head) - 2)]))
        lines += [_line([_escaped(one, "|") for one in cells]) for cells in _cells(run)]
        lines.append("")
    lines += [LEGEND, "", "## How it was made", ""]
    if made["command"]:
        lines += ["```bash", made["command"], "```", ""]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    dtypes = ", ".join(f"{model} in {dtype}" for model, dtype in made["dtype"].items())
    lines.append(f"{versions}; {dtypes}; {made['device']}; {made['date']}.")
    lines += ["", *[f"* {note}" for note in comparison["notes"]], ""]
    return "\n".join(lines)


def latex(comparison: Comparison) -> str:
    """A ``table`` for each run, in plain LaTeX that needs no package."""
    parts = [f"% {comparison['title']}", f"% {comparison['made']['command']}"]
    parts = [" ".join(part.splitlines()) for part in parts]
    for run in comparison["runs"]:
        head = [_tex(one) for one in _head(run)]
        lines = [
            r"\begin{table}",
            r"\centering\footnotesize",
            rf"\caption{{{_tex(run['model'])} on {_tex(run['set'])}. {_tex(_about(run))}}}",
            rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
            r"\hline",
            " & ".join(head) + r" \\",
            r"\hline",
            *(" & ".join(_tex(one) for one in cells) + r" \\" for cells in _cells(run)),
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    parts.append("% " + LEGEND)
    return "\n\n".join(parts) + "\n"


def _about(run: Run) -> str:
    return (
        f"{run['questions']} questions about {run['images']} {run['kind']}s, "
        f"{round(run['tokens'], 1):g} visual tokens each."
    )


def _head(run: Run) -> list[str]:
    found = [one.format(rival=run["rival"]) for one in _HEAD]
    return found if run["rival"] else found[:-1]


def _cells(run: Run) -> Iterator[list[str]]:
    for row in (run["dense"], *run["rows"]):
        yield row_cells(row, run["rival"])


def row_cells(row: Row, rival: str | None) -> list[str]:
    """One line of a table."""
    name = row["method"]
    if len(row.get("seeds", [])) > 1:
        name += f" ({len(row['seeds'])} seeds)"
    budget = "" if row["method"] == "dense" else row["meaning"]
    asked = "" if row["nominal"] is None else str(row["nominal"])
    others = ["dense", "random", *([rival] if rival else [])]
    if row["refused"] is not None:
        asked = "" if row["asked"] is None else f"{row['asked']:.4g}"
        why = "failed" if row["refused"].startswith("failed:") else "refused"
        return [name, budget, asked, why, *[""] * (6 + len(others))]
    cost = row["cost"]
    times = cost["time"]
    return [
        name,
        budget,
        asked,
        f"{row['average']:.1f}",
        f"{row['resident']:.1f}",
        *(_share(one) for one in (cost["llm_flops"], cost["flops"], cost["kv"])),
        "" if times is None else f"{times['median']:.2f}",
        _percent(row["accuracy"]),
        *(_points(row["against"].get(other)) for other in others),
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _percent(one: Interval) -> str:
    return f"{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"


def _points(one: Against | None) -> str:
    if one is None:
        return ""
    value, low, high = (100 * one["value"], 100 * one["low"], 100 * one["high"])
    sure = one["p_corrected"] is not None and one["p_corrected"] < LEVEL
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" + ("*" if sure else "")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str, signs: str) -> str:
    return "".join(f"\\{sign}" if sign in signs else sign for sign in text)


def _tex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
    }
    return "".join(special.get(sign, f"\\{sign}" if sign in "&%$#_{}" else sign) for sign in text)
