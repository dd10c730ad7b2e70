"""How numbers of a comparison are written in tables for people."""

from __future__ import annotations

from prunus.compare.contract import Against, Facts, Interval, Row

#: Below it, a difference is marked.
LEVEL = 0.05


def named(row: Row) -> str:
    """The method, with its seeds where there are several."""
    seeds = len(row.get("seeds", []))
    return f"{row['method']} ({seeds} seeds)" if seeds > 1 else row["method"]


def is_sure(one: Against | None) -> bool:
    """Whether a difference is one, after the correction."""
    return one is not None and one["p_corrected"] is not None and one["p_corrected"] < LEVEL


def share(value: float | None) -> str:
    """A share of what the dense model needs, in percent."""
    return "" if value is None else f"{100 * value:.1f}"


def percent(one: Interval) -> str:
    """An accuracy with its interval, in percent."""
    return f"{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"


def points(one: Against | None) -> str:
    """A difference with its interval, in points, marked where it is one."""
    if one is None:
        return ""
    value, low, high = (100 * one["value"], 100 * one["low"], 100 * one["high"])
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" + ("*" if is_sure(one) else "")


def difference(one: Against | None) -> str:
    """A difference in points with its corrected p, if it was counted (that of a method)."""
    if one is None:
        return ""
    text, p = f"{100 * one['value']:+.1f}", one["p_corrected"]
    return text if p is None else f"{text} ({probability(p)})"


def probability(p: float) -> str:
    """``p = 0.03``, or what it is less than."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2f}" if p >= 0.0995 else f"p = {p:.3f}"


def seconds(row: Row) -> str:
    """The median time of a prefill as a share of the dense model's, in percent."""
    time = row["cost"]["time"]
    return "" if time is None else share(time["median"])


def is_ours(facts: Facts | None) -> bool:
    """Whether it is one of prunus' own systems or their compositions."""
    return facts is not None and facts["ours"]


def reason(row: Row, most: int = 150) -> str:
    """Why a row was refused, in short: without what to do about it."""
    text = (row["refused"] or "").split("; ")[0].split(", because")[0]
    return text if len(text) <= most else text[: most - 1].rstrip() + "\u2026"
