"""Draw the first picture of the readme: four systems at one budget on one scene, light and dark.

    python tools/hero.py              # docs/img/hero-light.png and hero-dark.png

The budget is what VisiPruner, which takes none, comes to by itself: its mean of visual tokens per
layer over the questions. The others are asked for that as a true average. Answers that are the
scene's own are marked as right, others as wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import prunus
from prunus.inference.answer import Answer, answer
from prunus.inference.inputs import placed, process
from prunus.inference.prompts import render
from prunus.method import Method
from prunus.tasks.sample import load_sample
from prunus.viz import Key, Panel, draw_panels
from prunus.viz.as_seen import pictures_as_seen
from prunus.viz.entry import Spot, draw_entry, last_removal
from prunus.viz.seen import Picture

MODEL = "tiny-llava"
FOLDER = Path(__file__).parents[1] / "docs" / "img"
_TOKENS = 8  # of an answer


@dataclass(frozen=True)
class System:
    """One of the four, with what it answered to each question."""

    title: str
    methods: Sequence[Method]
    answers: Sequence[Answer] = ()

    @property
    def average(self) -> float:
        """Visual tokens per layer, mean over the questions."""
        counts = [float(one.report["tokens"]["average"]) for one in self.answers]
        return sum(counts) / len(counts)


def asked(model: Any, processor: Any, inputs: Sequence[Any]) -> list[System]:
    """All four at the budget of the one that finds its own."""
    own = _answered(System("VisiPruner", [prunus.VisiPruner()]), model, processor, inputs)
    keep = round(own.average)
    others = [
        System("CLSE", [prunus.CLSE(keep=keep)]),
        System("EvoPrune", [prunus.EvoPrune(keep=keep)]),
        System("Stepwise", [prunus.Stepwise(keep=keep)]),
    ]
    first, second, last = (_answered(one, model, processor, inputs, "true") for one in others)
    return [first, second, own, last]


def _answered(
    one: System, model: Any, processor: Any, inputs: Sequence[Any], budget: Any = "nominal"
) -> System:
    methods = one.methods or None
    said = [answer(model, processor, own, methods, _TOKENS, budget=budget) for own in inputs]
    return replace(one, answers=said)


def panels(
    picture: Picture, questions: Sequence[Any], dense: System, systems: Sequence[System]
) -> list[Panel]:
    """The scene with the questions and what the unpruned model says, and what each system keeps for
    the first of them."""
    both = zip(questions, dense.answers, strict=True)
    lines = "\n".join(
        f"{n}. {one.text} (unpruned: {said.text})" for n, (one, said) in enumerate(both, 1)
    )
    found = [Panel(picture, "the scene, and three questions", lines)]
    for one in systems:
        said = [answer.text for answer in one.answers]
        lines = "\n".join(f"{n}. {text}" for n, text in enumerate(said, 1))
        right = [text == one.answer for text, one in zip(said, questions, strict=True)]
        found.append(replace(kept_by(one, picture), caption=lines, right=right))
    return found


def kept_by(one: System, picture: Picture) -> Panel:
    """What is left of ``picture`` where a system was asked its first question."""
    removal = last_removal(one.answers[0].trace, leaves=0)
    if removal is None:
        raise SystemExit(f"{one.title} removed nothing")
    entry, before = removal
    drawn, done = draw_entry(entry, Spot(picture), before)
    return Panel(drawn, f"{one.title}: {len(entry.kept[0][0])} {done}")


def averages(systems: Sequence[System]) -> str:
    """How many tokens a layer sees, from the fewest to the most of ``systems``."""
    every = [one.average for one in systems]
    low, high = (f"{pick(every):.0f}" for pick in (min, max))
    return low if low == high else f"{low} to {high}"


def in_both_lights(
    rows: Sequence[Sequence[Panel]], folder: Path, stem: str, title: str, size: float
) -> list[Path]:
    """Write ``stem``-light.png and -dark.png."""
    return [
        draw_panels(
            rows,
            folder / f"{stem}-{name}.png",
            title=title,
            size=size,
            key=Key(gone=True, merged=True),
            few_colours=True,
            dark=name == "dark",
        )
        for name in ("light", "dark")
    ]


def draw(folder: Path) -> list[Path]:
    """Write both pictures."""
    model, processor = prunus.load(MODEL)
    image, questions = load_sample()
    texts = [render(processor, one.text, ["image"]) for one in questions]
    encoded = [process(processor, text, [image]) for text in texts]
    inputs = [placed(one, model.device, model.dtype) for one in encoded]
    systems = asked(model, processor, inputs)
    dense = _answered(System("unpruned", ()), model, processor, inputs)
    [[picture]] = pictures_as_seen(processor, inputs[0], [[image]], [])
    row = panels(picture, questions, dense, systems)
    title = (
        "One scene, one budget, four systems\n"
        f"{systems[2].answers[0].report['tokens']['original']:g} visual tokens, of which a layer "
        f"sees {averages(systems)} on average; drawn: question 1"
    )
    return in_both_lights([row], folder, "hero", title, 2.4)


def main(told: str | None = __doc__, draw: Callable[[Path], list[Path]] = draw) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=told)
    parser.add_argument("--output", type=Path, default=FOLDER, help="the folder of both pictures")
    for path in draw(parser.parse_args().output):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
