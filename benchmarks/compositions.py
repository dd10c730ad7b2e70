"""Which methods, with which shares, stand best behind each other: searched on tuning sets.

    .venv/bin/python benchmarks/compositions.py --output docs/data/compositions/search.json

With --show it only prints what was found so far. Scenes and videos with *training* digits, drawn
from seeds of their own; the evaluation sets are never looked at. Images at one size for tiny-llava,
at several for tiny-qwen, and videos, at three averages of visual tokens over all layers. Successive
halving: all candidates are asked few questions, the better and the cheaper ones more. What was
answered is written after every step, and a second call goes on where the first one was stopped.
What became of it: docs/compositions.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import prunus
from prunus.evaluate.cells import Cell
from prunus.evaluate.runner import Evaluation
from prunus.io.files import write_text
from prunus.pruners.prunus import Prunus
from prunus.tasks.sets import load_tuning_set
from prunus.versions import __version__

SETS = {"scenes": "tiny-llava", "sizes": "tiny-qwen", "videos": "tiny-qwen"}
BUDGETS = {"11.1": 1 / 9, "22.2": 2 / 9, "33.3": 1 / 3}
#: Questions of each type, and scenes, in each round.
ROUNDS = ((6, 30), (14, 60), (20, 80))
#: How many go on: the best, and the cheapest of those near the best (a share of the questions). In
#: the first round all are asked at the first budget, and these at the others.
BEST, CHEAPEST, NEAR = (4, 3, 2), (3, 2, 2), (0.1, 0.05, 0.025)
#: Points that a cheaper composition may be behind the best one.
LEAN, BALANCED = 0.02, 0.0075

#: Asked at every budget, because one rule for all of them is to be frozen.
FINALISTS = (
    "tome 1.2b > divprune 1.1 > fastv@4",
    "tome third > divprune 1.3 > fastv@4",
    "evo hidden third > divprune 1.3 > fastv@4",
    "divprune",
)

Stages = list[dict[str, Any]]
Rule = Callable[[float], Stages]


def tower(method: str, share: Callable[[float], float], **params: Any) -> Rule:
    """A merge in the tower that leaves ``share(b)`` for an average ``b``; none from 0.9 on."""
    return lambda b: (
        [{"method": method, "leaves": [[b, share(b)]], "params": params}] if share(b) < 0.9 else []
    )


def then(method: str, times: float = 0.0, **params: Any) -> Rule:
    """A method that leaves ``times`` the average, or (0) makes it up."""
    leaves = {"leaves": None} if times else {}
    return lambda b: [
        {"method": method, "params": params}
        | ({"leaves": [[b, min(0.95, times * b)]]} if leaves else {})
    ]


def line(*rules: Rule) -> Rule:
    """One behind the other."""
    return lambda b: [stage for rule in rules for stage in rule(b)]


SHARES: dict[str, Callable[[float], float]] = {
    "1.5b": lambda b: 1.5 * b,
    "2b": lambda b: 2 * b,
    "third": lambda b: 0.25 + 0.75 * b,
    "half": lambda b: 0.4375 + 0.5625 * b,
}
FREE = {"divprune": then("divprune")}
TRAINED = {"stepwise": then("stepwise")}


def evo(share: str, preset: str = "evoprune@noattn") -> Rule:
    """EvoPrune, of a video all frames together."""
    return tower(preset, SHARES[share], per="video")


def candidates() -> dict[str, Rule]:
    """All that is tried, by name; what needs a selector is called so."""
    found = {**FREE, **TRAINED}
    for name in ("evoprune@noattn", "tome", "visionzip", "mmr@diversity", "pooling"):
        found[name] = then(name, **({"per": "video"} if name.startswith("evo") else {}))
    for share in SHARES:
        found[f"evo {share} > divprune"] = line(evo(share), then("divprune"))
    for share in ("2b", "third", "half"):
        found[f"evo {share} > stepwise"] = line(evo(share), then("stepwise"))
    for share in SHARES:
        found[f"tome {share} > divprune"] = line(tower("tome", SHARES[share]), then("divprune"))
    for share in SHARES:
        found[f"tome {share} > divprune 1.3 > fastv@4"] = line(
            tower("tome", SHARES[share]), then("divprune", 1.3), then("fastv", layer=4)
        )
    found["tome 1.2b > divprune 1.1 > fastv@4"] = line(
        tower("tome", lambda b: 1.2 * b), then("divprune", 1.1), then("fastv", layer=4)
    )
    found["tome third > stepwise"] = line(tower("tome", SHARES["third"]), then("stepwise"))
    found["evo+attention third > divprune"] = line(evo("third", "evoprune"), then("divprune"))
    hidden = tower("evoprune@hidden", SHARES["third"], per="video", protect=0.0)
    found["evo hidden third > divprune"] = line(hidden, then("divprune"))
    found["evo hidden third > divprune 1.3 > fastv@4"] = line(
        hidden, then("divprune", 1.3), then("fastv", layer=4)
    )
    found["evo third > mmr 0.25"] = line(evo("third"), then("mmr", weight=0.25))
    found["evo half > visionzip"] = line(evo("half"), then("visionzip"))
    found["evo third > random"] = line(evo("third"), then("random", layer=None))
    for times in (1.3, 1.6):
        late = then("fastv", layer=4)
        found[f"evo third > divprune {times} > fastv@4"] = line(
            evo("third"), then("divprune", times), late
        )
    found["divprune 1.5 > fastv@4"] = line(then("divprune", 1.5), then("fastv", layer=4))
    found["evo third > stepwise 1.3 > fastv@4"] = line(
        evo("third"), then("stepwise", 1.3), then("fastv", layer=4)
    )
    found["evo 2b > fastv@2"] = line(evo("2b"), then("fastv", layer=2))
    return found | later(hidden)


def later(hidden: Rule) -> dict[str, Rule]:
    """What was added when these methods came, and asked in the same way."""
    found: dict[str, Rule] = {name: then(name) for name in ("cdpruner", "otprune", "mmtok")}
    late = then("fastv", layer=4)
    third = tower("tome", SHARES["third"])
    for name in ("cdpruner", "otprune", "mmtok"):
        found[f"tome third > {name}"] = line(third, then(name))
        found[f"tome third > {name} 1.3 > fastv@4"] = line(third, then(name, 1.3), late)
    found["evo hidden third > cdpruner 1.3 > fastv@4"] = line(hidden, then("cdpruner", 1.3), late)
    found["tome 1.5b > cdpruner 1.3 > fastv@4"] = line(
        tower("tome", SHARES["1.5b"]), then("cdpruner", 1.3), late
    )
    found["tome third > mmr 0.25 1.3 > fastv@4"] = line(third, then("mmr", 1.3, weight=0.25), late)
    found["tome third > cdpruner 1.3 > priortr@4"] = line(
        third, then("cdpruner", 1.3), then("priortr", layer=4)
    )
    return found


def trained(name: str) -> bool:
    """Whether a candidate needs a selector."""
    return any(word in name for word in TRAINED)


class Search:
    """What was answered so far, in a file.

    ``seen[round][set][budget][candidate]``: right answers as a text of 0 and 1, and what they cost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: dict[str, Any] = {}
        self.refused: dict[str, str] = {}
        self.seconds = 0.0
        if path.exists():
            found = json.loads(path.read_text("utf-8"))
            self.seen, self.refused = found["seen"], found["refused"]
            self.seconds = found["cpu_seconds"]
        self._models: dict[str, Any] = {}

    def save(self) -> None:
        """Write everything."""
        rules = candidates()
        about = {
            "prunus": __version__,
            "torch": torch.__version__,
            "rounds": [{"per_type": each, "scenes": scenes} for each, scenes in ROUNDS],
            "sets": SETS,
            "stages": {
                name: {budget: rule(share) for budget, share in BUDGETS.items()}
                for name, rule in rules.items()
            },
            "cpu_seconds": round(self.seconds, 1),
            "refused": self.refused,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**about, "seen": self.seen}, separators=(",", ":"))
        write_text(self.path, text)

    def ask(self, number: int, name: str, budget: str, wanted: Sequence[str]) -> None:
        """Have the ``wanted`` candidates answered at one budget, those that were not."""
        there = self.seen.setdefault(str(number), {}).setdefault(name, {}).setdefault(budget, {})
        cells = []
        for one in wanted:
            if one not in there and f"{one} {name} {budget}" not in self.refused:
                method = Prunus(keep=BUDGETS[budget], stages=candidates()[one](BUDGETS[budget]))
                cells.append(Cell(one, BUDGETS[budget], None, method))
        if not cells:
            return
        began = time.process_time()
        per_type, scenes = ROUNDS[number]
        data = load_tuning_set(name, number, scenes, per_type)
        if SETS[name] not in self._models:
            self._models[SETS[name]] = prunus.load(SETS[name])
        evaluation = Evaluation(*self._models[SETS[name]], data, cells, budget="true")
        evaluation.run()
        for outcome in evaluation.so_far()[1]:
            figures = {key: round(value, 5) for key, value in outcome.figures.items()}
            right = "".join("01"[int(one)] for one in outcome.right)
            there[outcome.cell.name] = {"right": right, "figures": figures}
        for cell in cells:
            if cell.key in evaluation.refused:
                self.refused[f"{cell.name} {name} {budget}"] = evaluation.refused[cell.key]
        self.seconds += time.process_time() - began
        self.save()

    def standing(self, budget: str, last: int) -> dict[str, dict[str, float]]:
        """Of each candidate that was asked in all rounds up to ``last``: share of right answers
        (the mean over sets) and costs, as shares of the dense model's."""
        found = {}
        for one in candidates():
            rows = []
            for name in SETS:
                own = [
                    self.seen.get(str(n), {}).get(name, {}).get(budget, {}).get(one)
                    for n in range(last + 1)
                ]
                if all(own):
                    right = "".join(part["right"] for part in own)
                    figures = own[-1]["figures"]
                    rows.append(
                        {
                            "right": right.count("1") / len(right),
                            name: right.count("1") / len(right),
                            "all": figures["flops_ratio"],
                            "llm": figures["llm_flops_ratio"],
                            "tokens": figures["average"] / figures["original"],
                        }
                    )
            if len(rows) == len(SETS):
                mean = {
                    key: float(np.mean([row[key] for row in rows]))
                    for key in ("right", "all", "llm", "tokens")
                }
                found[one] = mean | {name: row[name] for name, row in zip(SETS, rows, strict=True)}
        return found

    def going_on(self, budget: str, number: int) -> list[str]:
        """Candidates of round ``number``: the best so far, and the cheapest near the best; of those
        that need a selector as many again."""
        first = next(iter(BUDGETS))
        if number == 0 and budget == first:
            return list(candidates())
        told = (first, 0) if number == 0 else (budget, number - 1)
        chosen: list[str] = []
        for kind in (False, True):
            rows = {
                name: row for name, row in self.standing(*told).items() if trained(name) == kind
            }
            best = sorted(rows, key=lambda name: -rows[name]["right"])
            near = [n for n in best if rows[n]["right"] >= rows[best[0]]["right"] - NEAR[number]]
            cheap = sorted(near, key=lambda name: rows[name]["all"])
            few = 1 + kind
            chosen += [*best[: BEST[number] // few], *cheap[: CHEAPEST[number] // few]]
        return [*dict.fromkeys([*chosen, *FINALISTS])]


def choice(rows: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """``careful``: most right answers; ``lean`` and ``balanced``: the cheapest in all that is not
    more than so many points behind."""
    best = max(rows, key=lambda name: rows[name]["right"])
    found = {"careful": best}
    for name, gap in (("balanced", BALANCED), ("lean", LEAN)):
        near = [one for one in rows if rows[one]["right"] >= rows[best]["right"] - gap]
        found[name] = min(near, key=lambda one: rows[one]["all"])
    return found


def show(search: Search) -> None:
    """The standings, the best first, and what would be frozen."""
    for budget in BUDGETS:
        for last in range(len(ROUNDS) - 1, -1, -1):
            rows = search.standing(budget, last)
            if rows:
                break
        print(f"\n{budget} %, after round {last + 1}")
        for name, row in sorted(rows.items(), key=lambda pair: -pair[1]["right"]):
            sets = "  ".join(f"{100 * row[one]:5.1f}" for one in SETS)
            costs = f"{100 * row['llm']:5.1f} {100 * row['all']:5.1f}"
            print(f"{name:40} {100 * row['right']:5.1f}   {sets}   {costs}")
        for kind, title in ((False, "training-free"), (True, "with a selector")):
            own = {name: row for name, row in rows.items() if trained(name) == kind}
            if own:
                print(title, choice(own))
    print(f"\nCPU seconds: {search.seconds:.0f}; refused: {len(search.refused)}")


def main() -> None:
    """Search, or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--show", action="store_true", help="only print what was found so far")
    parser.add_argument("--finals", action="store_true", help="ask the finalists alone")
    parser.add_argument("--rounds", type=int, default=len(ROUNDS))
    args = parser.parse_args()
    search = Search(args.output)
    if not args.show:
        torch.set_num_threads(1)
        for number in range(args.rounds):
            for budget in BUDGETS:
                wanted = list(FINALISTS) if args.finals else search.going_on(budget, number)
                for name in SETS:
                    search.ask(number, name, budget, wanted)
                    print(number, budget, name, f"{search.seconds:.0f} s", flush=True)
    show(search)


if __name__ == "__main__":
    main()
