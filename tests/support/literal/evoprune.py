"""EvoPrune's merging, read literally."""

from __future__ import annotations

import math
from collections.abc import Callable

from prunus import EvoPrune
from tests.support.literal.density import literal_diversity
from tests.support.oracles.merged import Pairs, Seen


def literal(method: EvoPrune, counts: list[int]) -> Callable[[Seen], Pairs | None]:
    """EvoPrune with loops; ``counts`` are the removals of each block."""
    line: list[int] = []

    def choose(seen: Seen) -> Pairs | None:
        removed = counts[seen.block]
        if not removed:
            return None
        order = line if method.order == "append" and line else seen.order
        at = {index: place for place, index in enumerate(seen.order)}
        metric = seen.keys if method.metric == "key" else seen.states
        metric = metric / metric.norm(dim=-1, keepdim=True)
        total = len(order)
        lone = dict.fromkeys(order, 0.0)
        if method.diversity:
            values = literal_diversity(metric.tolist(), method.neighbours, method.tau)
            lone = {index: values[at[index]] for index in order}
        protected: set[int] = set()
        if method.protect:
            spared = max(0, math.floor(min(method.protect * total, total - 2 * removed)))
            ranked = sorted(at, key=lambda index: (-float(seen.received[at[index]]), index))
            protected = set(ranked[:spared])
        found = []
        halves = order[::2], order[1::2]
        giving, taking = halves if method.parity == "tokens" else halves[::-1]
        for i in giving:
            pairs = []
            for place, j in enumerate(taking):
                score = (1 + float(metric[at[i]] @ metric[at[j]])) / 2
                score *= math.exp(-method.diversity * (lone[i] + lone[j]))
                if i in protected or j in protected:
                    score -= 1e4
                pairs.append((score, -place, j))
            found.append((max(pairs), i))
        found.sort(key=lambda pair: -pair[0][0])
        chosen = [(i, pair[2]) for pair, i in found[:removed]]
        unmerged = [i for _, i in found[removed:]]
        if method.parity == "cls":
            unmerged.sort(key=giving.index)
        line[:] = unmerged + taking
        return [i for i, _ in chosen], [j for _, j in chosen]

    return choose
