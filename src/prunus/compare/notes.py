"""How the numbers came about, in words, beside them."""

from __future__ import annotations

from collections.abc import Sequence

from prunus.bench.clock import FEWEST
from prunus.compare.contract import Run
from prunus.compare.course import Course
from prunus.compare.setting import Setting
from prunus.tasks.faults import told

#: How notes begin that are the same for every comparison, or follow from its rows.
_GENERAL = (
    "An answer is right",
    "Accuracies have",
    "Questions about one image share",
    "Differences are paired",
    "p_corrected is",
    "The true budget is",
    "FLOPs are",
    "Times are of",
    "refused: ",
)


def notes_of(setting: Setting, courses: Sequence[Course], runs: Sequence[Run]) -> list[str]:
    """What is said of intervals, corrections, costs and seeds; what was refused; what was left
    out."""
    notes = [*notes_of_statistics(setting.rounds), *notes_of_rows(runs)]
    for course in courses:
        if found := [*course.lines, *course.faults.values()]:
            notes.append(f"{course.id}: {len(found)} questions were left out:")
            notes += told(found)
    return notes


def notes_of_statistics(rounds: int) -> list[str]:
    """How numbers came about, with ``rounds`` of timing."""
    notes = [
        "An answer is right if it equals the true one, whatever its case, punctuation and articles."
        " Seeds are averaged.",
        "Questions about one image share its luck. Accuracies have Wilson's 95 % interval of as "
        "many independent questions as those asked are worth: their number over the design effect "
        "(at least 1), and by Student's quantile of the images.",
        "Differences are paired over questions, with variances between images. Their 95 % interval "
        "is Student's, after one question lost and one won were added (Bonett and Price): without "
        "them it would be too narrow where few answers change. p is two-sided and exact: of all "
        "ways to flip the signs of the images' sums, the share that reaches as far.",
        "p_corrected is Holm's correction over all methods of a run at one budget and meaning, for "
        "each comparison (dense, random, rival) by itself; controls are not counted among them.",
        "The true budget is the average of visual tokens over all decoder layers, the nominal one "
        "what a method's own schedule makes of the number asked for. Where nothing is removed "
        "inside the language model, both are the same, and were asked once.",
        "FLOPs are matrix products of the prefill, text included; all FLOPs: with vision tower, "
        "projector and the method's own work. KV: bytes of the cache behind the prompt.",
    ]
    if rounds:
        notes.append(
            "Times are of a whole prefill with its vision tower, one prompt at a time, against the "
            f"dense model, timed in the same {rounds} rounds with nothing beside it: on this "
            "machine, and no promise for others."
            + ("" if rounds >= FEWEST else f" With fewer than {FEWEST}, quartiles mean little.")
        )
    return notes


def notes_of_rows(runs: Sequence[Run]) -> list[str]:
    """What was refused, and why."""
    notes = []
    for run in runs:
        for row in run["rows"]:
            if row["refused"] is not None:
                asked = "" if row["asked"] is None else f" at {row['asked']:.4g} ({row['meaning']})"
                notes.append(f"refused: {run['id']}: {row['method']}{asked}: {row['refused']}")
    return notes


def own_notes(notes: Sequence[str]) -> list[str]:
    """Those of ``notes`` that only their own comparison could say: what was left out of it."""
    return [note for note in notes if not note.startswith(_GENERAL)]
