"""The page of a method: what its class declares, what follows from it, and what was measured.

Nothing is told here a second time: the idea is the docstring of the class, facts are
:func:`prunus.method.derived.derived`, families are those of proved.json, accuracies and costs the
rows of docs/leaderboard.md.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from prunus.cli import main
from prunus.errors import PrunusError
from prunus.families.proved import REFUSED, proved
from prunus.method.base import DEPTH, Method
from prunus.method.budget import Budget
from prunus.method.derived import TOKENS
from prunus.method.registry import methods, required
from tools.docs.board import Row, rows
from tools.docs.roles import plain

ROOT = Path(__file__).resolve().parents[2]
#: Pages in docs/ about one method or several.
_MORE = {
    "clse": "clse.md",
    "clse-m": "clse.md",
    "evoprune": "evoprune.md",
    "visipruner": "visipruner.md",
    "stepwise": "stepwise.md",
    "one-shot": "stepwise.md",
    "mmr": "stepwise.md",
    "prunus": "compositions.md",
}


@cache
def known() -> dict[str, type[Method]]:
    """The methods that ship with prunus, by name."""
    return {n: c for n, c in methods().items() if c.__module__.startswith("prunus.pruners.")}


@cache
def _said() -> dict[str, dict[str, Any]]:
    """What `prunus methods --json` says of each."""
    out = StringIO()
    with redirect_stdout(out), suppress(SystemExit):
        main(["methods", "--json"])
    found: dict[str, dict[str, Any]] = json.loads(out.getvalue())
    return found


def _show(value: Any) -> str:
    """A value as it is typed behind ``--param``."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(_show, value)) or "none"
    if isinstance(value, Mapping):  # a stage of a composition
        return str(value.get("method", value))
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()


def page(name: str, drawn: str | None) -> str:
    """The page of a method as Markdown; ``drawn``: the command of its picture in methods/img/."""
    cls = known()[name]
    facts = _said()[name]
    lines = [f"# {name}", "", f"*{_sentence(cls.summary)}*", ""]
    if drawn is not None:
        lines += _picture(cls, drawn)
    lines += ["## Idea", "", _idea(cls), ""]
    if name in _MORE:
        lines += [
            f"Settings, choices and measurements in full: [{_MORE[name]}](../{_MORE[name]}).",
            "",
        ]
    lines += ["## Where it acts, and what it needs", "", *_where(cls, facts["derived"]), ""]
    lines += ["## Right answers, and what they cost", "", *_measured(name), ""]
    lines += ["## When it fails", "", *_fails(name), ""]
    lines += ["## Parameters", "", *_parameters(facts), ""]
    if facts["presets"]:
        lines += ["## Presets", "", *_presets(name, facts)]
    lines += ["## Paper and differences", "", *_origin(cls)]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _picture(cls: type[Method], drawn: str) -> list[str]:
    words = f"What {cls.name} keeps of the sample image of the built-in model"
    return [
        f"![{words}](img/{cls.name}.png)",
        "",
        f"{words}, tiny-llava. `sample.png` is the image of `prunus demo`:",
        "",
        "```bash",
        drawn,
        "```",
        "",
    ]


def _idea(cls: type[Method]) -> str:
    return plain(inspect.cleandoc(cls.__doc__ or ""))


def _where(cls: type[Method], derived: dict[str, Any] | None) -> list[str]:
    if derived is None:
        return ["It acts where it is told to: see its parameters."]
    counts = {
        "asked": "as many as asked for (`keep`)",
        "schedule": "by a schedule of its own",
        "own": "it finds its own count",
        "all": "all: it takes none away",
    }
    needs = {
        "": "nothing",
        "selector": "a selector trained for the model ([`prunus train`](../stepwise.md))",
        "calibration": f"a calibration for the model (`prunus calibrate {cls.name}`), or the "
        "published values serve",
    }
    yes = {True: "yes", False: "no"}
    rows = {
        "acts at": "; ".join(derived["places"]) or "nothing",
        "sees the question": yes[derived["question"]],
        "tokens left": counts[derived["count"]],
        "what goes": "may become part of what stays" if derived["merges"] else "is gone",
        "looks into the vision tower": yes[derived["tower"]],
        "goes by its CLS token": yes[derived["cls"]],
        "needs": needs[derived["needs"]],
    }
    lines = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    if "layers" in rows["acts at"]:
        lines += ["", f"Of a decoder of {DEPTH} layers, with default settings."]
    if true := _true(cls):
        lines += ["", true]
    return lines


def _true(cls: type[Method]) -> str:
    """What nominal budgets come to, on LLaVA-1.5-7B."""
    if required(cls) or "keep" not in cls.__dataclass_fields__:
        return ""
    words = []
    for keep in (192, 128, 64):
        made = cls(keep=keep)
        try:
            counts = Budget([made], DEPTH).counts(made, 1, TOKENS)
        except PrunusError:  # its keep is an average, and this one is out of reach
            words.append(f"{keep} are out of reach")
            continue
        if counts is None or len(made.parts()) > 1:
            return ""
        words.append(f"{keep} are {_average(made, counts):.1f}")
    return (
        f"Of {TOKENS} visual tokens, averaged over {DEPTH} layers: {', '.join(words)} "
        '(`budget="true"` makes the average what is asked for).'
    )


def _average(made: Method, counts: Any) -> float:
    left, layers = [float(TOKENS)] * DEPTH, [cut.layer or 0 for cut in made.cuts(DEPTH)] or [0]
    for layer, count in zip(layers, counts, strict=True):
        left[layer:] = [float(count)] * (DEPTH - layer)
    return sum(left) / DEPTH


def _rows(name: str) -> list[Row]:
    return [row for row in rows() if row.method == name or row.method.startswith(f"{name}@")]


def _measured(name: str) -> list[str]:
    own = _rows(name)
    if not own:
        return ["It is not in [the leaderboard](../leaderboard.md)."]
    lines = [
        "On the small built-in models, at equal true cost; rows of "
        "[the leaderboard](../leaderboard.md), which says what each number is.",
        "",
        "| set | budget | method | right, % | to dense | to random | FLOPs of all, % | KV, % |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in own:
        lines.append(f"| {' | '.join(row.cells())} |")
    return lines


def _fails(name: str) -> list[str]:
    lines = []
    own = [row for row in rows() if row.method == name] or _rows(name)
    below = [row for row in own if row.certain_loss]
    if below:
        worst = min(below, key=lambda row: row.loss)
        lines.append(
            f"* **It loses answers**, beyond chance, in {len(below)} of the {len(own)} "
            f"comparisons above; the most in {worst.data} at {worst.budget or 'its own count'}: "
            f"{worst.loss:+.1f} points beside the dense model."
        )
    elif own:
        lines.append(
            f"* In none of the {len(own)} comparisons above is its loss beside the dense model "
            "beyond chance; on your own data [prunus compare](../compare.md) tells."
        )
    if even := [row for row in own if row.budget and not row.beats_random and row.to_random]:
        where = ", ".join(f"{row.data} at {row.budget}" for row in even)
        lines.append(f"* **No better than random**, as far as these tell: {where}.")
    lines += _unreachable(name)
    lines += _families(name)
    return lines or ["Nothing is known of it."]


def _unreachable(name: str) -> list[str]:
    """Averages that it cannot reach, as the board has them."""
    text = (ROOT / "docs" / "leaderboard.md").read_text("utf-8")
    found = re.findall(
        rf"^\* {re.escape(name)} at .*? cannot average [\d.]+ of (\d+) visual tokens over (\d+) "
        r"layers: the least is ([\d.]+)",
        text,
        re.MULTILINE,
    )
    return [
        f"* **Not at every budget**: of {tokens} visual tokens and {layers} layers the least "
        f"average is {least}."
        for tokens, layers, least in dict.fromkeys(found)
    ]


def _families(name: str) -> list[str]:
    reasons: dict[str, list[str]] = {}
    tried = 0
    for family, own in sorted(proved().items()):
        for shown, said in own.items():
            if name not in said:
                continue
            tried += 1
            if said[name].startswith(REFUSED):
                why = said[name].removeprefix(REFUSED).replace(f"{name}: ", "")
                reasons.setdefault(why, []).append(f"{family} ({shown}s)")
    if not tried:
        return []
    refused = sum(map(len, reasons.values()))
    head = f"* It runs on {tried - refused} of {tried} pairs of families and inputs"
    if not refused:
        return [f"{head} ([models](../models.md))."]
    lines = [f"{head} ([models](../models.md)); refused:"]
    return lines + [f"    * {', '.join(where)}: {_code(why)}" for why, where in reasons.items()]


def _code(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _parameters(facts: dict[str, Any]) -> list[str]:
    if not facts["parameters"]:
        return ["It has none."]
    lines = ["| parameter | default | type | |", "|---|---|---|---|"]
    for one in facts["parameters"]:
        default = "*required*" if one["required"] else f"`{_show(one['default'])}`"
        words = [f"`{one['name']}`", default, one["type"], one["help"]]
        lines.append(f"| {' | '.join(str(word).replace('|', '&#124;') for word in words)} |")
    return lines


def _presets(name: str, facts: dict[str, Any]) -> list[str]:
    lines = ["| preset | sets |", "|---|---|"]
    for preset, params in facts["presets"].items():
        words = ", ".join(f"`{one}={_show(value)}`" for one, value in params.items())
        lines.append(f"| `{name}@{preset}` | {words} |")
    example = next(iter(facts["presets"]))
    return [
        *lines,
        "",
        "```python",
        f'with prunus.prune(model, "{name}@{example}") as run:',
        "    model.generate(**inputs, max_new_tokens=8)",
        "```",
        "",
    ]


def _origin(cls: type[Method]) -> list[str]:
    paper = re.sub(
        r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", cls.paper or "prunus"
    )
    paper = re.sub(r"(?<!/)\b(github\.com/[\w./-]+)", r"[\1](https://\1)", paper)
    file = Path(inspect.getfile(cls)).relative_to(ROOT).as_posix()
    lines = [
        f"{paper}. Where paper and published code differ, and what is ours, is said under "
        f"[Idea](#idea). It is one file, `{file}`."
    ]
    stem = Path(inspect.getfile(cls)).stem
    tests = sorted((ROOT / "tests" / "methods").glob(f"test_{stem}*.py"))
    if tests:
        files = ", ".join(f"`{one.relative_to(ROOT).as_posix()}`" for one in tests)
        lines += ["", f"Its tests, with a literal reading of the formula: {files}."]
    return lines
