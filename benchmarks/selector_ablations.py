"""Table 4's ablations, the literal arm and a sweep of the length's weight: short trainings.

    .venv/bin/python benchmarks/selector_ablations.py --steps 150 --folder runs/ablations \
        --output docs/data/stepwise/ablations.json

Short trainings of tiny-llava's selector that differ in one setting, with the same seed and the same
held-out questions. What is trained already is not trained again, so that this can be stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from prunus.io.files import write_text

SETTINGS: dict[str, list[str]] = {
    "as shipped": [],
    "causal encoder": ["--set", "selector.causal_encoder=true"],
    "last step alone": ["--set", "aggregate=last"],
    "uniform sum": ["--set", "aggregate=uniform"],
    "alive without decay": ["--set", "aggregate=alive"],
    "literal arm": ["--arm", "literal"],
    "length 0.1": ["--length", "0.1"],
    "length 1": ["--length", "1"],
    "length 0.03": ["--length", "0.03"],
}


def main() -> None:
    """Train what is missing, collect all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--held-out", type=int, default=1050)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="comma-separated names; default: all")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    names = list(SETTINGS) if args.only is None else args.only.split(",")
    if unknown := [name for name in names if name not in SETTINGS]:
        parser.error(f"unknown {', '.join(unknown)}: there are {', '.join(SETTINGS)}")
    args.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in names:
        folder = args.folder / name.replace(" ", "-")
        found = folder.with_suffix(folder.suffix + ".json")
        if not found.exists():
            command = [sys.executable, "-m", "prunus", "train", "stepwise", "--precision", "bf16"]
            command += ["--steps", str(args.steps), "--held-out", str(args.held_out)]
            command += ["--threads", str(args.threads), "--every", "100000", "--save-every", "600"]
            command += ["--output", str(folder), "--json", *SETTINGS[name]]
            if (folder / "checkpoint.pt").exists():
                command.append("--resume")
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            if json.loads(said)["stopped"] is not None:
                sys.exit("interrupted; the same command goes on")
            write_text(found, said)
        result = json.loads(found.read_text())
        own = {key: result[key] for key in ("step", "seconds", "figures", "held_out")}
        rows.append({"setting": name, "options": SETTINGS[name], **own})
        print(json.dumps(rows[-1]), flush=True)
    if args.output is not None:
        about = {"steps": args.steps, "rows": rows}
        write_text(args.output, json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
