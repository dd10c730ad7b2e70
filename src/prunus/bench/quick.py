"""A few rounds beside the dense model: what ``prunus run --time`` and ``prunus demo`` show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor

from prunus.bench.clock import in_turn, quartiles, ratios
from prunus.bench.generation import Timed, timer
from prunus.bench.settings import pruned
from prunus.bench.table import NOISY
from prunus.families import family_of
from prunus.method import Method
from prunus.method.budget import Meaning

ROUNDS, WARM_UP = 7, 1


@dataclass(frozen=True)
class Quick:
    """Seconds (medians) and ratios to the dense model (quartiles of each round's) of the time to
    the ``first`` token, and of each further ``token`` (None: there was one alone). ``noisy``:
    the middle half of either's ratios is wider than a tenth."""

    first: float
    first_ratio: tuple[float, float, float]
    token: float | None
    token_ratio: tuple[float, float, float] | None
    noisy: bool
    rounds: int

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        for name in ("first_ratio", "token_ratio"):
            found[name] = None if found[name] is None else list(found[name])
        return found


def quick(
    model: Any,
    inputs: Mapping[str, Tensor],
    settings: Mapping[str, Sequence[Method]],
    tokens: int,
    budget: Meaning = "nominal",
    rounds: int = ROUNDS,
    step: Callable[[], None] = lambda: None,
    most: float = math.inf,
) -> dict[str, Quick]:
    """Times of answers of ``tokens`` tokens for each of ``settings``, of which the first is what
    the others are compared with; all take turns, and ``step`` is called behind each. After ``most``
    seconds there are fewer rounds, three at least."""
    with timer(family_of(model)) as timed:

        def action() -> Timed:
            found = timed(inputs, tokens)
            step()
            return found

        found = in_turn(
            dict.fromkeys(settings, action),
            rounds,
            WARM_UP,
            {name: partial(pruned, model, list(own), budget) for name, own in settings.items()},
            most=most,
        )
    dense = found[next(iter(settings))]
    return {name: _one(own, dense) for name, own in found.items()}


def _one(own: Sequence[Timed], dense: Sequence[Timed]) -> Quick:
    first = ratios([time.first for time in own], [time.first for time in dense])
    steps = [time.each for time in own if time.each is not None]
    theirs = [time.each for time in dense if time.each is not None]
    later = ratios(steps, theirs) if steps else None
    return Quick(
        first=quartiles([time.first for time in own])[1],
        first_ratio=first,
        token=quartiles(steps)[1] if steps else None,
        token_ratio=later,
        noisy=any(one is not None and one[2] - one[0] > NOISY for one in (first, later)),
        rounds=len(own),
    )


def words(ours: Quick, dense: Quick) -> list[str]:
    """What was measured, a line for each."""
    lines = [_line("first token", ours.first, dense.first, ours.first_ratio)]
    if ours.token is not None and dense.token is not None and ours.token_ratio is not None:
        lines.append(_line("each further token", ours.token, dense.token, ours.token_ratio))
    if ours.noisy:
        lines.append(
            f"noisy: {ours.rounds} rounds on a busy machine say little; prunus bench takes more"
        )
    return lines


def _line(what: str, ours: float, dense: float, ratio: tuple[float, float, float]) -> str:
    return (
        f"{what} {1e3 * ours:.1f} ms, unpruned {1e3 * dense:.1f} ms: {ratio[1]:.2f} of it "
        f"(median of rounds, quartiles {ratio[0]:.2f} and {ratio[2]:.2f})"
    )
