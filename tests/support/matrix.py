"""Tries every method on every family, and writes down what is proved.

    python -m tests.support.matrix                 # all: half an hour
    python -m tests.support.matrix llava-next      # these families only, the rest as it was
    python -m tests.support.matrix --page          # the page alone

The result is src/prunus/families/proved.json, and docs/models.md is drawn from it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import prunus
from prunus.checking import Row
from prunus.families import families, family_of
from prunus.families.proved import REFUSED, Proved, runs_on
from prunus.method import methods
from prunus.pruners.prunus import Prunus
from tests.support.families import Kind
from tests.support.kinds import kinds
from tests.support.random_selectors import RandomOneShot, RandomStepwise

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "src" / "prunus" / "families" / "proved.json"
PAGE = ROOT / "docs" / "models.md"
#: For want of selectors that fit random models; and an average that two blocks of a small tower and
#: rounding down on small tiles can leave to what stands behind them.
CHOSEN: dict[str, Any] = {
    "prunus": Prunus(keep=0.5),
    "one-shot": RandomOneShot(keep=0.3),
    "stepwise": RandomStepwise(keep=0.3),
}


def load(kind: Kind) -> tuple[Any, Any]:
    """Model and processor, through the disk."""
    with tempfile.TemporaryDirectory() as folder:
        kind.save(Path(folder))
        model, processor = prunus.load(folder)
    return model.eval(), processor


def own_methods() -> list[str]:
    """Names of the methods of prunus."""
    found = methods().items()
    return [name for name, cls in found if cls.__module__.startswith("prunus.pruners.")]


def words(rows: list[Row]) -> str:
    """What the trials of one method come to.

    Raises:
        AssertionError: one is wrong.
    """
    failed = [row for row in rows if row.status == "failed"]
    assert rows and not failed, [(row.method, row.setting, row.notes) for row in failed]
    refused = [row for row in rows if row.status == "refused"]
    if len(refused) == len(rows):
        return REFUSED + refused[0].notes[0]
    partly = {note for row in rows for note in row.notes if row not in refused}
    return "; ".join(sorted(partly))


def prove(
    kind: Kind, names: Sequence[str], inputs: Sequence[str] = ("image", "video")
) -> dict[str, dict[str, str]]:
    """What :data:`Proved` has for one kind of model, for those of ``inputs`` that it takes."""
    model, processor = load(kind)
    found = {}
    chosen = [CHOSEN.get(name, name) for name in names]
    for what in inputs:
        if what == "video" and not kind.video:
            continue
        report = prunus.check(model, processor, chosen, steps=3, video=what == "video")
        found[what] = {
            name: words([row for row in report.rows if row.method.split("@")[0] == name])
            for name in names
        }
    return found


def joined(parts: Mapping[str, dict[str, dict[str, str]]]) -> dict[str, dict[str, str]]:
    """Several kinds of one family, by name: where only some refuse, the word says which."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for kind, part in parts.items():
        for what, own in part.items():
            for name, word in own.items():
                found.setdefault(what, {}).setdefault(name, {})[kind] = word
    return {
        what: {name: _one(own) for name, own in methods.items()} for what, methods in found.items()
    }


def _one(said: Mapping[str, str]) -> str:
    refused = {kind: word for kind, word in said.items() if word.startswith(REFUSED)}
    if len(refused) == len(said):
        return REFUSED + " / ".join(dict.fromkeys(w.removeprefix(REFUSED) for w in said.values()))
    notes = [refuses(kind, word) for kind, word in refused.items()]
    notes += [word for kind, word in said.items() if word and kind not in refused]
    return "; ".join(dict.fromkeys(notes))


def refuses(kind: str, word: str) -> str:
    """How a table says that one kind of a family refuses what others do."""
    return f"{kind}: {word}"


def page(table: Proved) -> str:
    """docs/models.md."""
    notes: dict[str, int] = {}

    def sign(word: str) -> str:
        if not word:
            return "yes"
        number = notes.setdefault(word.removeprefix(REFUSED), len(notes) + 1)
        return f"{'no' if word.startswith(REFUSED) else 'yes'} [{number}](#notes)"

    known = families()
    said = [word for inputs in table.values() for own in inputs.values() for word in own.values()]
    refused = sum(word.startswith(REFUSED) for word in said)
    lines = [
        "# Models",
        "",
        "Which methods run on which families of models, on images and on videos. Written by",
        "`python -m tests.support.matrix` from [checks](check.md) of tiny random models of the",
        "real classes, with their real processors, saved and loaded. *Yes*: neutral settings equal",
        "the unmodified model, batches equal single prompts, prompt and answer equal that model",
        "where it does not see what went, caches hold what they should, and nothing is left",
        "behind. A number says why not, or what could not be compared. What a model of yours does,",
        "`prunus check --model ...` tells; `prunus models FAMILY` prints a family's table.",
        "",
        f"{len(table)} families, {len(own_methods())} methods: {len(said)} pairs on images and",
        f"videos, of which {refused} are refused.",
        "",
        "| family | images | videos | batches | merging in the tower |",
        "|---|---|---|---|---|",
    ]
    for family, inputs in sorted(table.items()):
        merging = [runs_on(family, name) for name in ("evoprune", "tome")]
        row = ["yes", "yes" if "video" in inputs else "no", "yes", "yes" if any(merging) else "no"]
        lines.append(f"| [{family}](#{family.replace('.', '')}) | {' | '.join(row)} |")
    lines.append("")
    for family, inputs in sorted(table.items()):
        cls = known[family]
        lines += [f"## {family}", "", f"{cls.summary} (`{'`, `'.join(cls.model_types)}`)", ""]
        lines += [f"| method | {' | '.join(inputs)} |", "|---|" + "---|" * len(inputs)]
        for name in sorted({name for own in inputs.values() for name in own}):
            lines.append(f"| `{name}` | {' | '.join(sign(own[name]) for own in inputs.values())} |")
        lines.append("")
    lines += ["## Notes", ""]
    lines += [f"{number}. {word}" for word, number in notes.items()]
    return "\n".join(lines) + "\n"


def write(chosen: list[str]) -> list[str]:
    """Prove the families ``chosen``, or all, and write table and page; what is wrong, a line each
    (such a family stays as it was)."""
    table = json.loads(TABLE.read_text("utf-8")) if TABLE.exists() else {}
    found: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    wrong = []
    for kind in kinds():
        name = family_of(kind.build()[0]).name
        if chosen and name not in chosen:
            continue
        print(f"{name}: {kind.name}", flush=True)
        try:
            found.setdefault(name, {})[kind.name] = prove(kind, own_methods())
        except AssertionError as error:
            wrong.append(f"{kind.name}: {error}")
            continue
        table[name] = joined(found[name])
        TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", "utf-8")
    PAGE.write_text(page(table), "utf-8")
    return wrong


if __name__ == "__main__":
    if sys.argv[1:] == ["--page"]:
        PAGE.write_text(page(json.loads(TABLE.read_text("utf-8"))), "utf-8")
    elif faults := write(sys.argv[1:]):
        sys.exit("\n".join(["wrong:", *faults]))
