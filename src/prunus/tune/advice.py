"""The answer in words, and how the numbers came about."""

from __future__ import annotations

import math

from prunus.tune.candidates import cli_line, python_line
from prunus.tune.contract import DENSE, MISSED, NOT_SHOWN, PRUNE, Answer, Check, Held
from prunus.tune.search import Search, Tried
from prunus.tune.verdict import overall, told_level
from prunus.tune.wish import Wish

#: With fewer images nobody tried what the intervals hold.
FEW_IMAGES = 13


def answer_of(
    wish: Wish, search: Search, chosen: Tried | None, found: Held | None, refused: str | None
) -> Answer:
    """What to do."""
    if chosen is None:
        return _dense(None, nobody(wish, search))
    if found is None:
        return _dense(MISSED, f"{chosen.label} was chosen, but held-out questions say: {refused}")
    verdict = overall(found["checks"])
    why = "; ".join(told(one, found) for one in found["checks"])
    if verdict == MISSED:
        return _dense(verdict, f"{chosen.label} was chosen, but on the held-out questions {why}")
    column = chosen.ledger.column
    return Answer(
        what=PRUNE,
        verdict=verdict,
        why=why,
        label=chosen.label,
        python=python_line(column, wish.methods),
        cli=cli_line(column, wish.methods, wish.model),
    )


def _dense(verdict: str | None, why: str) -> Answer:
    return Answer(what=DENSE, verdict=verdict, why=why, label=None, python=None, cli=None)


def nobody(wish: Wish, search: Search) -> str:
    """Why there is no candidate, with the one that came nearest."""
    bound = wish.goal.max_loss
    count = f"none of {len(search.tried)} candidates"
    lossless = [one for one in search.tried if one.loss is not None]
    if not lossless:
        reason = next((one.out for one in search.tried if one.out is not None), "none was tried")
        return f"{count} can be asked: {reason}"
    near = min(lossless, key=lambda one: one.loss.center if one.loss is not None else math.inf)
    if bound is None:
        return f"{count} is within {wish.goal.words}: {near.label} {near.out}"
    return (
        f"{count} is within {wish.goal.words} on the tuning questions; {near.label} is nearest "
        f"({near.out})"
    )


def told(check: Check, found: Held) -> str:
    """One check, in words."""
    bound, value, low, high = (check[key] for key in ("bound", "value", "low", "high"))  # type: ignore[literal-required]
    if check["what"] == "loss":
        level = told_level(found["level"])
        return (
            f"{100 * value:.1f} points are lost ({level}: {100 * low:.1f} to {100 * high:.1f}), "
            f"wanted: at most {100 * bound:g}: {check['verdict']}"
        )
    if check["what"] == "speed-up":
        three = f" ({low:.2f} to {high:.2f})" if low < high else " in FLOPs"
        return (
            f"it is {value:.2f} times as fast{three}, wanted: at least {bound:g}: "
            f"{check['verdict']}"
        )
    if check["what"] == "kv":
        return (
            f"the largest prompt needs {value:,.0f} bytes of KV cache, wanted: at most "
            f"{bound:,.0f}: {check['verdict']}"
        )
    return (
        f"{100 * value:.1f} % of the KV bytes are needed, wanted: at most {100 * bound:g} %: "
        f"{check['verdict']}"
    )


def notes_of(
    wish: Wish, search: Search, found: Held | None, given: bool, held_out: int
) -> list[str]:
    """How the numbers came about, and what they do not say."""
    rounds = f"{len(search.plan)} round{'s' * (len(search.plan) > 1)}"
    notes = [
        "Each image is on the tuning or on the held-out side by its pixels. Everything is chosen "
        f"on the tuning side; of {held_out} held-out questions one candidate is asked, once.",
        f"{len(search.tried)} candidates in {rounds} of successive halving. Who "
        "is out for its loss is so by bounds that hold for all candidates in all rounds at once, "
        f"95 % together (Bonferroni over {search.tests}); the others are cut to those that save "
        "most, times the chance that the held-out questions show it. The bound of the held-out "
        "side is for one candidate, and needs no correction.",
        "Losses are paired over questions, with variances between images (Bonett and Price, "
        "Student). Shown means that the upper end of the two-sided interval is within the bound.",
    ]
    if not given:
        notes.append(
            "No answers were given: what is right is what the dense model answers itself, so a "
            "loss is a changed answer, be it for the better or the worse."
        )
    if wish.rounds:
        notes.append(
            "Times are of a whole prefill of one prompt with its vision tower, in rounds that take "
            "turns with the dense model, on this machine; those of the answer were taken anew "
            "after it was chosen. The interval is that of a median."
        )
    else:
        notes.append("Nothing was timed: what is saved, and how fast it is, are of all FLOPs.")
    if found is not None:
        notes += _warnings(wish, found)
    return notes


def _warnings(wish: Wish, found: Held) -> list[str]:
    notes = []
    loss = next((one for one in found["checks"] if one["what"] == "loss"), None)
    if loss is not None and loss["verdict"] == NOT_SHOWN:
        bound, count = f"at most {100 * loss['bound']:g} points", found["needed"]
        if count is None:
            notes.append(
                f"the loss seems to be the bound itself: no number of questions would show {bound}"
            )
        else:
            total = round(found["questions"] / wish.share)
            notes.append(
                f"too few questions to show {bound}: about {count:,} in all would do, if the loss "
                f"is what it seems (these are about {total:,})"
            )
    if loss is not None and loss["verdict"] == MISSED and loss["low"] <= loss["bound"]:
        notes.append(
            "the interval of the loss reaches below the bound: these questions do not show that "
            "more is lost, either; with more of them the answer may be another"
        )
    if found["earlier"]:
        names = "; ".join(f"{one['label']}, {one['date']}" for one in found["earlier"])
        notes.append(
            f"these held-out questions were looked at before ({names}): to make up for it, the "
            f"interval of the loss is one of {told_level(found['level'])}, so that all looks "
            "together hold with 90 %. Fresh questions are better."
        )
    if found["images"] < FEW_IMAGES:
        notes.append(
            f"the held-out questions are about {found['images']} images: what intervals hold was "
            f"tried with {FEW_IMAGES} or more"
        )
    return notes
