"""What the page says in words: answers, numbers, refusals. All text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from prunus.bench.quick import Quick
from prunus.errors import PrunusError, one_line
from prunus.inference.answer import Answer
from prunus.results.events import events_of

#: Seconds of an answer, and of the unmodified model in turn with it; None where not measured.
Times = tuple[Quick, Quick] | None


def refusal(error: PrunusError) -> str:
    """Why something cannot be done, and what to do."""
    return f'<div class="refusal" role="alert">{escape(one_line(error))}</div>'


def said(title: str, answer: Answer, dense: Answer) -> str:
    """The answer under a setting, with that of the unmodified model behind it."""
    same = answer.text == dense.text
    beside = "as the unmodified model says" if same else f"unmodified: <b>{_text(dense)}</b>"
    return (
        f'<div class="said"><b class="answer">{_text(answer)}</b> '
        f'<span class="{"same" if same else "other"}">{beside}</span> '
        f'<span class="setting">{escape(title)}</span></div>'
    )


def notes(answer: Answer) -> str:
    """What methods decided, and what they say of a run that numbers do not tell."""
    lines = [str(event) for event in events_of(answer.trace)]
    if answer.report["idle"]:
        lines.append(f"{answer.report['method']} found nothing to do: all tokens stayed")
    lines += answer.report["notes"]
    return "".join(f'<div class="note">{escape(line)}</div>' for line in lines)


def _text(answer: Answer) -> str:
    return escape(answer.text) or "(nothing)"


#: What stands where nothing was measured, counted, or done.
_NOTHING = "&ndash;"


def numbers(
    dense: Answer, columns: Sequence[tuple[str, Answer, Times] | None], names: Sequence[str]
) -> str:
    """A table of what answers cost, the unmodified model first; None is a side that was refused."""
    there = [None if one is None else one[1] for one in columns]
    heads = ["unmodified", *names]
    rows: list[tuple[str, list[str]]] = [
        ("answer", [_text(dense), *(_NOTHING if one is None else _text(one) for one in there)]),
        ("visual tokens at the last layer", [_tokens(one, "kept") for one in (dense, *there)]),
        ("mean of all layers", [_tokens(one, "average") for one in (dense, *there)]),
        ("prefill FLOPs", [_flops(one) for one in (dense, *there)]),
        ("KV cache, KiB", [_memory(one) for one in (dense, *there)]),
    ]
    times = [None if one is None else one[2] for one in columns]
    if any(time is not None for time in times):
        rows += [
            ("first token, ms", [_first_dense(times), *map(_first, times)]),
            ("each further token, ms", [_later_dense(times), *map(_later, times)]),
        ]
    head = "".join(f"<th>{escape(one)}</th>" for one in ("", *heads))
    body = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, cells in rows
    )
    noisy = any(one is not None and one[0].noisy for one in times)
    note = "In brackets quartiles of the ratios, round by round." if len(rows) > 5 else ""
    note += " Noisy: the machine is busy; prunus bench takes more rounds." if noisy else ""
    table = f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div><div class="note">{note}</div>'


def _tokens(answer: Answer | None, key: str) -> str:
    if answer is None:
        return _NOTHING
    tokens = answer.report["tokens"]
    count = f"{tokens[key]:.1f}".removesuffix(".0")
    of = f" of {tokens['original']:g}" if key == "kept" else ""
    return f"{count}{of}"


def _flops(answer: Answer | None) -> str:
    flops = None if answer is None else answer.report["flops"]
    if flops is None:
        return _NOTHING
    return f"{flops['pruned']['total']:.3g}{_of(flops['ratio'])}"


def _memory(answer: Answer | None) -> str:
    kept = None if answer is None else answer.report["kv_bytes"]
    return _NOTHING if kept is None else f"{kept['pruned'] / 1024:,.0f}{_of(kept['ratio'])}"


def _of(ratio: float) -> str:
    return f" <small>{ratio:.1%}</small>"


def _first(time: Times) -> str:
    return _NOTHING if time is None else _timed(time[0].first, time[0].first_ratio)


def _later(time: Times) -> str:
    if time is None or time[0].token is None or time[0].token_ratio is None:
        return _NOTHING
    return _timed(time[0].token, time[0].token_ratio)


def _timed(seconds: float, ratio: tuple[float, float, float]) -> str:
    low, middle, high = ratio
    return f"{1e3 * seconds:.1f} <small>{middle:.2f} of it [{low:.2f}, {high:.2f}]</small>"


def _first_dense(times: Sequence[Times]) -> str:
    return " | ".join(f"{1e3 * time[1].first:.1f}" for time in times if time is not None)


def _later_dense(times: Sequence[Times]) -> str:
    found = [time[1].token for time in times if time is not None]
    return " | ".join(f"{1e3 * one:.1f}" for one in found if one is not None) or _NOTHING
