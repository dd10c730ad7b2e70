"""The tables of a comparison as Markdown: for each run and budget, the best method first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prunus.compare import cells
from prunus.compare.contract import Comparison, Facts, Row, Run
from prunus.compare.groups import Group, Line, groups_of

LEGEND = (
    "*right*: percent of answers, with the 95 % interval. *to dense*, *to random* and so on: "
    "paired difference in points of accuracy, with p after Holm's correction over all methods at "
    f"that budget; below {cells.LEVEL:g} the difference is bold. *tokens*: visual tokens per "
    "decoder layer, their mean. *LLM* and *all*: FLOPs of the prefill, of the language model alone "
    "and with tower, projector and what choosing costs; *KV*: bytes of the cache; *time*: a "
    "prefill with its tower, measured; each in percent of what the dense model needs. Methods in "
    "bold are prunus' own systems and compositions; the others are baselines and controls."
)


def markdown(comparison: Comparison) -> str:
    """All runs, each under a heading, with what made them and how to read them."""
    facts = comparison["methods"]
    lines = [f"# {comparison['title']}", "", LEGEND, ""]
    if len(comparison["runs"]) > 1:
        lines += [*_glance(comparison), ""]
    for run in comparison["runs"]:
        lines += [f"## {run['model']} on {run['set']}", "", about(run), ""]
        groups = groups_of(run)
        for group in groups:
            lines += _tables(run, group, facts)
        lines += [*_refusals(groups), *_reported(run)]
    return "\n".join([*lines, *_made(comparison)])


def about(run: Run) -> str:
    """What a run asked, in a sentence."""
    return (
        f"{run['questions']} questions about {run['images']} {run['kind']}s, "
        f"{round(run['tokens'], 1):g} visual tokens each."
    )


def _glance(comparison: Comparison) -> list[str]:
    """The best at each true budget, over all runs."""
    facts = comparison["methods"]
    rows = [["model, set", "budget", "dense", "best method", "best of prunus", "random"]]
    for run in comparison["runs"]:
        dense = f"{100 * run['dense']['accuracy']['value']:.1f}"
        for group in groups_of(run):
            lines = [line.row for line in (group.true or group.nominally)]
            usable = [row for row in lines if _usable(row, facts)]
            own = [row for row in usable if cells.is_ours(facts.get(row["method"]))]
            lots = [row for row in lines if row["method"] == "random"]
            if lines:
                best = (_short(one) for one in (usable, own, lots))
                rows.append([run["id"], group.name, dense, *best])
    return ["## At a glance", "", *_table(rows, 2)]


def _usable(row: Row, facts: Mapping[str, Facts]) -> bool:
    """Whether it is a method, and none of the controls that know the answer or see nothing."""
    own = facts.get(row["method"])
    return own is None or not own["control"] or bool(own["paper"])


def _short(rows: Sequence[Row]) -> str:
    return f"{rows[0]['method']} {100 * rows[0]['accuracy']['value']:.1f}" if rows else ""


def _tables(run: Run, group: Group, facts: Mapping[str, Facts]) -> list[str]:
    lines: list[str] = []
    heads = (
        (group.true, f"{group.name}: as the average over all layers"),
        (
            group.nominally,
            f"{group.name}: as published"
            + (", where that is not the average" if group.true else ""),
        ),
        (group.own, "Without a budget: methods that find their own count, and controls"),
    )
    for own, head in heads:
        if own:
            lines += [f"### {head}", "", *_table(_rows(run, own, facts), 1), ""]
    return lines


def _rows(run: Run, lines: Sequence[Line], facts: Mapping[str, Facts]) -> list[list[str]]:
    """The table of one budget: its head, the dense model, and the methods, the best first."""
    others = ["dense", "random", *([run["rival"]] if run["rival"] else [])]
    others = [name for name in others if any(name in line.row["against"] for line in lines)]
    timed = any(line.row["cost"]["time"] is not None for line in lines)
    head = ["method", "right", *(f"to {name}" for name in others), "tokens", "LLM", "all", "KV"]
    found = [[*head, "time"] if timed else head]
    for row in (run["dense"], *(line.row for line in lines)):
        name = cells.named(row)
        cost = row["cost"]
        found.append(
            [
                f"**{name}**" if cells.is_ours(facts.get(row["method"])) else name,
                cells.percent(row["accuracy"]),
                *(_difference(row, other) for other in others),
                f"{row['average']:.1f}",
                *(cells.share(one) for one in (cost["llm_flops"], cost["flops"], cost["kv"])),
                *([cells.seconds(row)] if timed else []),
            ]
        )
    return found


def _difference(row: Row, other: str) -> str:
    one = row["against"].get(other)
    text = cells.difference(one)
    return f"**{text}**" if cells.is_sure(one) else text


def _refusals(groups: Sequence[Group]) -> list[str]:
    """What was refused, one line for each method and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for group in groups:
        for row in group.refused:
            at = f"{group.name} ({row['meaning']})" if row["asked"] is not None else ""
            found.setdefault((row["method"], cells.reason(row)), []).append(at)
    if not found:
        return []
    lines = ["### Refused", ""]
    for (method, why), places in found.items():
        at = ", ".join(filter(None, places))
        lines.append(f"* {method}{f' at {at}' if at else ''}: {why}")
    return [*lines, ""]


def _reported(run: Run) -> list[str]:
    """Of a benchmark: what it reports itself, and medians of seconds."""
    rows = [row for row in (run["dense"], *run["rows"]) if row.get("metrics")]
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    if not names:
        return []
    found = [["method", "budget", "tokens asked", *names]]
    for row in rows:
        budget = "" if row["key"] == "dense" else row["meaning"]
        asked = "" if row["nominal"] is None else str(row["nominal"])
        numbers = [row["metrics"].get(name) for name in names]
        told = ["" if one is None else f"{one:.4g}" for one in numbers]
        found.append([cells.named(row), budget, asked, *told])
    return ["### What the benchmark reports itself", "", *_table(found, 2), ""]


def _made(comparison: Comparison) -> list[str]:
    made = comparison["made"]
    lines = ["## How it was made", ""]
    if made["command"]:
        lines += ["```bash", made["command"], "```", ""]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    dtypes = ", ".join(f"{model} in {dtype}" for model, dtype in made["dtype"].items())
    lines.append(f"{versions}; {dtypes}; {made['device']}; {made['date']}.")
    notes = [note for note in comparison["notes"] if not note.startswith("refused: ")]
    return [*lines, "", *[f"* {note}" for note in notes], ""]


def _table(rows: Sequence[Sequence[str]], texts: int) -> list[str]:
    """A Markdown table of ``rows``, of which the first is the head; the first ``texts`` columns are
    set to the left."""
    rule = ["---"] * texts + ["---:"] * (len(rows[0]) - texts)
    return [_line(rows[0]), _line(rule), *(_line(row) for row in rows[1:])]


def _line(row: Sequence[str]) -> str:
    return "| " + " | ".join(one.replace("|", "\\|") for one in row) + " |"
