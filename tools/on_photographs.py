"""Draw what four systems keep of the photographs that ship, light and dark.

    python tools/on_photographs.py         # docs/img/photographs-light.png and -dark.png

For each photograph the budget is what VisiPruner comes to by itself, as in ``tools/hero.py``. The
model is tiny-llava, which was trained on drawn scenes alone: the picture shows where tokens are
kept, and no answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import prunus
from prunus.inference.inputs import placed, process
from prunus.inference.prompts import render
from prunus.tasks.photographs import PHOTOGRAPHS, photograph
from prunus.viz import Key, Panel, draw_panels
from prunus.viz.as_seen import pictures_as_seen
from prunus.viz.entry import Spot, draw_entry, last_removal
from tools.hero import MODEL, System, asked

FOLDER = Path(__file__).parents[1] / "docs" / "img"
QUESTION = "how many objects are there?"


def row_of(name: str, model: Any, processor: Any) -> tuple[list[Panel], list[System]]:
    """The photograph as the model saw it and what each system keeps of it; the systems."""
    image = photograph(name)
    encoded = process(processor, render(processor, QUESTION, ["image"]), [image])
    inputs = placed(encoded, model.device, model.dtype)
    systems = asked(model, processor, [inputs])
    [[picture]] = pictures_as_seen(processor, inputs, [[image]], [])
    found = [Panel(picture, name)]
    for one in systems:
        removal = last_removal(one.answers[0].trace, leaves=0)
        if removal is None:
            raise SystemExit(f"{one.title} removed nothing")
        entry, before = removal
        drawn, done = draw_entry(entry, Spot(picture), before)
        found.append(Panel(drawn, f"{one.title}: {len(entry.kept[0][0])} {done}"))
    return found, systems


def draw(folder: Path) -> list[Path]:
    """Write both pictures."""
    model, processor = prunus.load(MODEL)
    rows, systems = zip(*(row_of(name, model, processor) for name in PHOTOGRAPHS), strict=True)
    averages = [one.average for row in systems for one in row]
    low, high = (f"{pick(averages):.0f}" for pick in (min, max))
    tokens = systems[0][0].answers[0].report["tokens"]["original"]
    title = (
        "Three photographs, four systems: where tokens are kept\n"
        f"{MODEL}: of {tokens:g} visual tokens a layer sees {low} to {high} on average, in a row "
        "alike; drawn: the last layer\n"
        f"asked: {QUESTION} The model knows drawn scenes only, and cannot say what these are"
    )
    return [
        draw_panels(
            rows,
            folder / f"photographs-{name}.png",
            title=title,
            size=2.2,
            key=Key(gone=True, merged=True),
            few_colours=True,
            dark=name == "dark",
        )
        for name in ("light", "dark")
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="the folder of both pictures")
    for path in draw(parser.parse_args().output):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
