"""Draw what four systems keep of the photographs that ship, light and dark.

    python -m tools.on_photographs         # docs/img/photographs-light.png and -dark.png

For each photograph the budget is what VisiPruner comes to by itself, as in ``tools/hero.py``. The
model is tiny-llava, which was trained on drawn scenes alone: the picture shows where tokens are
kept, and no answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import prunus
from prunus.inference.inputs import placed, process
from prunus.inference.prompts import render
from prunus.tasks.photographs import PHOTOGRAPHS, photograph
from prunus.viz import Panel
from prunus.viz.as_seen import pictures_as_seen
from tools.hero import MODEL, System, asked, averages, in_both_lights, kept_by, main

QUESTION = "how many objects are there?"


def row_of(name: str, model: Any, processor: Any) -> tuple[list[Panel], list[System]]:
    """The photograph as the model saw it and what each system keeps of it; the systems."""
    image = photograph(name)
    encoded = process(processor, render(processor, QUESTION, ["image"]), [image])
    inputs = placed(encoded, model.device, model.dtype)
    systems = asked(model, processor, [inputs])
    [[picture]] = pictures_as_seen(processor, inputs, [[image]], [])
    return [Panel(picture, name), *(kept_by(one, picture) for one in systems)], systems


def draw(folder: Path) -> list[Path]:
    """Write both pictures."""
    model, processor = prunus.load(MODEL)
    rows, systems = zip(*(row_of(name, model, processor) for name in PHOTOGRAPHS), strict=True)
    seen = averages([one for row in systems for one in row])
    tokens = systems[0][0].answers[0].report["tokens"]["original"]
    title = (
        "Three photographs, four systems: where tokens are kept\n"
        f"{MODEL}: of {tokens:g} visual tokens a layer sees {seen} on average, in a row "
        "alike; drawn: the last layer\n"
        f"asked: {QUESTION} The model knows drawn scenes only, and cannot say what these are"
    )
    return in_both_lights(rows, folder, "photographs", title, 2.2)


if __name__ == "__main__":
    main(__doc__, draw)
