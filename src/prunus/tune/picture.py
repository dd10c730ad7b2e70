"""The picture of a search: what is lost against what is needed, and the one that was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunus.analyse.plots import COLOURS, Drawing, save
from prunus.tune.contract import Candidate, Tuned

#: Losses beyond so many times the bound, and costs beyond so many percent, are drawn at the edge.
_MOST, _WIDEST = 4.0, 110.0


def draw(tuned: Tuned, path: Path) -> Path:
    """Write the picture as a PNG.

    Raises:
        PrunusError: matplotlib is not installed.
        PrunusFileError: the file cannot be written.
    """

    def drawn(figure: Any) -> None:
        _panel(figure.subplots(), tuned)

    return save(Drawing(8.2, 4.8, drawn), path)


def share_of(candidate: Candidate) -> float | None:
    """Where it stands: its time, or FLOPs, as a share of the dense model's."""
    costs = candidate["costs"]
    if costs is None:
        return None
    return costs["flops"] if costs["time"] is None else costs["time"]


def front(candidates: list[Candidate]) -> list[Candidate]:
    """Those that were asked most and that no other beats in both, the cheapest first."""
    most = max((one["questions"] for one in candidates), default=0)
    placed = [
        (share, one["loss"]["value"], one)
        for one in candidates
        if one["questions"] == most
        and one["loss"] is not None
        and (share := share_of(one)) is not None
    ]
    found: list[Candidate] = []
    least = float("inf")
    for _, loss, one in sorted(placed, key=lambda three: three[:2]):
        if loss < least:
            found.append(one)
            least = loss
    return found


def _panel(axis: Any, tuned: Tuned) -> None:
    candidates = [one for one in tuned["candidates"] if share_of(one) is not None]
    timed = any(one["costs"] is not None and one["costs"]["time"] for one in candidates)
    bound = tuned["goal"].get("max_loss")
    edge = 100 * max(_MOST * (bound or 0.025), 0.02)
    most = max((one["questions"] for one in candidates), default=0)
    for asked, colour, size, told in (
        (False, "#b8b8b8", 14, "left out after fewer questions"),
        (True, COLOURS[0], 30, f"asked all {most} tuning questions"),
    ):
        own = [one for one in candidates if (one["questions"] == most) is asked]
        places = [min(_WIDEST, 100 * (share_of(one) or 0)) for one in own]
        losses = [min(edge, 100 * one["loss"]["value"]) for one in own if one["loss"] is not None]
        axis.scatter(places, losses, s=size, color=colour, label=told, zorder=2 + asked)
    best = front(candidates)
    line = [(100 * (share_of(one) or 0), 100 * one["loss"]["value"]) for one in best if one["loss"]]
    axis.plot(*zip(*line, strict=True), color=COLOURS[0], linewidth=1, zorder=2) if line else None
    for above, one, (x, y) in zip(range(len(best), 0, -1), best, line, strict=True):
        offset = (6, 11 * above - 4)  # one above the other where they lie near each other
        axis.annotate(one["label"], (x, min(y, edge)), xytext=offset, textcoords="offset points")
    axis.scatter([100], [0], marker="s", s=34, color="black", label="dense", zorder=4)
    if bound is not None:
        axis.axhline(100 * bound, color=COLOURS[1], linewidth=1, linestyle="--")
        axis.text(0.995, 100 * bound, "may be lost", color=COLOURS[1], ha="right", va="bottom",
                  transform=axis.get_yaxis_transform())  # fmt: skip
    _held_out(axis, tuned)
    axis.set_ylim(top=edge * 1.04)
    axis.set_xlabel(f"{'time of a prefill' if timed else 'FLOPs of everything'}, % of dense")
    axis.set_ylabel("points lost" if tuned["data"]["answers"] == "given" else "answers changed, %")
    axis.set_title(f"{tuned['model']}: {tuned['answer']['label'] or tuned['answer']['what']}",
                   loc="left")  # fmt: skip
    axis.legend(loc="upper right")


def _held_out(axis: Any, tuned: Tuned) -> None:
    held = tuned["held_out"]
    if held is None:
        return
    costs = held["costs"]
    share = costs["flops"] if costs["time"] is None else costs["time"]
    loss = held["loss"]
    below = 100 * (loss["value"] - loss["low"])
    above = 100 * (loss["high"] - loss["value"])
    axis.errorbar(
        [100 * (share or 0)], [100 * loss["value"]], yerr=[[below], [above]], fmt="D", markersize=7,
        color=COLOURS[1], capsize=4, zorder=5,
        label=f"chosen, on {held['questions']} held-out questions",
    )  # fmt: skip
