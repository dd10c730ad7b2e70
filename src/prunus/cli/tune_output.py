"""What ``prunus tune`` writes and shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.cli.console import out, print_result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunus.compare.contract import Interval
    from prunus.tune.contract import Candidate, Held, Tuned

RESULT, PICTURE = "tune.json", "pareto.png"
#: Candidates that are shown.
_SHOWN = 8


def write(tuned: Tuned, folder: Path, as_json: bool) -> None:
    """Write the result and its picture into ``folder``, and show the answer, or all as JSON."""
    from prunus.io.files import write_text
    from prunus.io.jsons import finite
    from prunus.tune.picture import draw

    text = json.dumps(finite(tuned), indent=1, ensure_ascii=False)
    write_text(folder / RESULT, text + "\n")
    written = [folder / RESULT, draw(tuned, folder / PICTURE)]
    if as_json:
        print_result({**finite(tuned), "files": [str(path) for path in written]})
        return
    console = out()
    for line in lines(tuned):
        console.print(line, markup=False, soft_wrap=True)
    for path in written:
        console.print(f"written: {path}", markup=False, soft_wrap=True)


def lines(tuned: Tuned) -> Iterator[str]:
    """The answer, as lines of text."""
    answer, held = tuned["answer"], tuned["held_out"]
    verdict = "" if answer["verdict"] is None else f" ({answer['verdict']})"
    head = answer["label"] if answer["label"] is not None else answer["what"]
    yield f"{tuned['model']}: {head}{verdict}"
    yield f"  {answer['why']}"
    if answer["python"] is not None:
        yield ""
        yield f"  {answer['python']}"
        yield f"  {answer['cli']}"
    if held is not None:
        yield ""
        yield from _held(held, tuned["data"]["answers"] == "given")
    yield ""
    yield from _others(tuned)
    yield ""
    for note in tuned["notes"]:
        yield f"* {note}"


def _held(held: Held, given: bool) -> Iterator[str]:
    yield f"{held['label']} on {held['questions']} held-out questions about {held['images']} images"
    what = "right" if given else "as the dense model answers"
    yield f"  {what:<26} {_percent(held['pruned'])}, dense {_percent(held['dense'])}"
    flips = f"{held['lost']} lost, {held['won']} won"
    yield f"  points lost                {_percent(held['loss'])}: {flips}"
    if (time := held["time"]) is not None:
        speed = time["speed_up"]
        yield (
            f"  prefill (first token)      {1e3 * time['dense']:.0f} -> {1e3 * time['pruned']:.0f} "
            f"ms, {speed['value']:.2f} [{speed['low']:.2f}, {speed['high']:.2f}] times as fast"
        )
    if (flops := held["costs"]["flops"]) is not None:
        yield f"  FLOPs of everything        {100 * flops:.1f} % of dense"
    if (kv := held["kv"]) is not None and held["kv_dense"] is not None:
        yield (
            f"  KV bytes of a prompt       {kv['value']:,.0f} (from {kv['low']:,.0f} to "
            f"{kv['high']:,.0f}), dense {held['kv_dense']:,.0f}"
        )
    yield f"  visual tokens per layer    {held['tokens']:.1f} of {held['tokens_dense']:.1f}"


def _others(tuned: Tuned) -> Iterator[str]:
    from prunus.tune.picture import share_of

    most = max((one["questions"] for one in tuned["candidates"]), default=0)
    yield "on the tuning questions: points lost [bounds for all candidates at once], what is needed"

    def place(one: Candidate) -> tuple[int, bool, float]:
        loss = one["loss"]
        return -one["questions"], one["out"] is not None, loss["value"] if loss is not None else 2.0

    shown = sorted(tuned["candidates"], key=place)
    for one in shown[:_SHOWN]:
        if one["loss"] is None:
            continue
        share = share_of(one)
        cost = "" if share is None else f", {100 * share:.0f} %"
        why = "chosen" if one["out"] is None else one["out"]
        asked = "" if one["questions"] == most else f" ({one['questions']} questions)"
        yield f"  {one['label']}: {_percent(one['loss'])}{cost}{asked}: {why}"
    if (left := len(shown) - _SHOWN) > 0:
        yield f"  and {left} more, in {RESULT}"


def _percent(one: Interval) -> str:
    return f"{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"
