"""What :mod:`prunus.analyse.suits` found: as a table, in sentences, as a verdict, drawn."""

from __future__ import annotations

from typing import Any

from prunus.analyse.ablations import BUDGETS
from prunus.analyse.measure import flat
from prunus.analyse.plots import Drawing, dots, panel
from prunus.analyse.result import Picture, Row, Table, Verdict
from prunus.analyse.suits import Suits
from prunus.analyse.verdict import percent, reason, together
from prunus.results.stats import Estimate


def suits_table(found: Suits) -> Table:
    """One line per measure and budget."""
    rows: list[Row] = []
    for trial in (*found.found, *found.trials):
        row: Row = {"measure": trial.measure, "keep": trial.keep, "layer": 1, "reference": 0}
        row |= flat("clse", trial.own) | {"random": trial.random} | flat("ahead", trial.ahead)
        row |= {"prompts": found.prompts, "images": trial.images, "verdict": trial.word}
        if trial.measure == "answers":
            for name, value in found.left[trial.keep].items():
                row |= flat(f"left_{name.lower()}", value)
        rows.append(row)
    about = (
        "CLSE (layer 1 against layer 0) and random choices of as many tokens (mean of 3): what is "
        "left of the dense model's first answer token (answers: exp(-KL)) and, where objects are "
        "known, the share kept of the tokens that show one, or one asked about; "
        f"{found.prompts} prompts, intervals over images"
    )
    return Table("spectral-verdict", about, rows)


def suits_facts(found: Suits) -> list[str]:
    """What objects and answers say."""
    facts = []
    for name, words in (("objects", "show an object"), ("asked", "show an object asked about")):
        own = [trial for trial in found.found if trial.measure == name]
        told = "; ".join(
            f"{_share(trial.own)} where random choices keep {percent(trial.random)}"
            for trial in own
        )
        if own:
            facts.append(
                f"Of the tokens that {words}, CLSE (layer 0 → 1) keeps {told}; {own[0].images} "
                f"{found.things}."
            )
    for keep, left in found.left.items():
        listed = ", ".join(
            f"{name} {_share(value)}"
            for name, value in sorted(left.items(), key=lambda item: -item[1].value)
        )
        facts.append(
            f"At {percent(keep)} kept, what is left of the dense model's first answer token (no "
            f"labels needed): {listed}."
        )
    return facts


def _share(found: Estimate) -> str:
    value, low, high = (100 * part for part in found)
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


#: What other choices are called on the command line.
_METHODS = {"hybrid": "clse-hybrid", "attention": "attn", "uniform": "uniform"}


def verdict(found: Suits) -> Verdict:
    """What it comes to: the answers decide; objects, where they are known, have their say."""
    word = together(found.trials)
    says = "cannot tell whether CLSE suits this model"
    if word != "cannot tell":
        says = f"CLSE {word} this model"
    images = found.trials[0].images
    text = (
        f"{says} (layer 0 → 1; {found.prompts} prompts about {images} {found.things}, no labels "
        f"needed): {reason(found.trials)}."
    )
    seen = together([trial for trial in found.found if trial.measure == "objects"])
    if seen != "cannot tell":
        more = "more" if seen == "suits" else "fewer"
        text += f" It keeps {more} of the objects' tokens than random choices do."
    if word == "cannot tell":
        text += " More images, or questions whose answers have to be seen, tell more."
    if word != "suits" and found.better:
        name, trial = max(found.better.items(), key=lambda item: item[1].own.value)
        text += (
            f" Better than random here: {name}, which leaves {percent(trial.own.value)} at "
            f"{percent(trial.keep)} kept (`--method {_METHODS[name]}`)."
        )
    if word == "does not suit":
        text += " CLSE at other layers: `prunus analyse sweep`."
    return Verdict(word, text)


def suits_picture(found: Suits) -> Picture:
    """How much of the answers each choice leaves, and what CLSE keeps of objects."""
    count = f"{found.prompts} prompts, 95 % intervals over images"
    about = f"What each choice of tokens leaves of the dense model's first answer token; {count}"
    if found.found:
        about += "; and the share of objects' tokens that CLSE keeps"

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(BUDGETS) + bool(found.found), squeeze=False)[0]
        for axis, (keep, left) in zip(axes, found.left.items(), strict=False):
            dots(axis, list(left), list(left.values()), 100)
            axis.axvline(100 * left["random"].value, color="black", lw=0.9, linestyle=(0, (5, 3)))
            panel(axis, f"{keep:.1%} of the tokens kept", "left of the answer, %", "")
            axis.set_xlim(0, 102)
        if found.found:
            words = {"objects": "objects", "asked": "asked about"}
            names = [f"{words[trial.measure]}, {trial.keep:.1%}" for trial in found.found]
            dots(axes[-1], names, [trial.own for trial in found.found], 100)
            for place, trial in enumerate(found.found):
                axes[-1].plot([100 * trial.random], [place], "|", color="black", markersize=14)
            panel(axes[-1], "Objects kept by CLSE (bar: random)", "% of their tokens", "")
            axes[-1].set_xlim(0, 102)

    return Picture("spectral-verdict", about, Drawing(11.5 if found.found else 8.0, 2.9, draw))
