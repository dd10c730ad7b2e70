"""Settings of every known method for the tests that run over all of them.

A new method is tested with its defaults and a small ``keep`` without being named here.
"""

from __future__ import annotations

import dataclasses

from prunus import CLSE, EvoPrune, Fixed, Method, Random, methods

CHOSEN = {
    "clse": [
        CLSE(keep=5),
        CLSE(keep=5, trim_cache=True),
        CLSE(keep=5, layers=(3,), reference=1),
        CLSE(keep=5, variant="hybrid"),
        CLSE(keep=12, variant="released"),
        CLSE(keep=12, variant="released", score_type="attn", trim_cache=False),
    ],
    # Two blocks of the LLaVAs' towers reach the projector: 16 tokens become 8 by the second alone,
    # 4 by both.
    "evoprune": [
        EvoPrune(keep=0.5),
        EvoPrune(keep=5, schedule="mean", start=0),
        EvoPrune(
            keep=6,
            schedule="decreasing",
            start=0,
            metric="hidden",
            proportional=True,
            by_size=False,
            order="append",
        ),
    ],
    "fixed": [
        Fixed([0, 3, 7, 8, 15], layer=2),
        Fixed([2, 9], layer=None),
        Fixed([1, 2, 3], layer=0),
        Fixed([4], layer=4, trim_cache=True),
    ],
    "random": [Random(keep=0.3), Random(keep=4, layer=None)],
}


def settings() -> dict[str, Method]:
    """Test id to method."""
    chosen: dict[str, Method] = {}
    for name, cls in methods().items():
        fields = {field.name for field in dataclasses.fields(cls)}
        default = [cls(keep=5)] if "keep" in fields else [cls()]
        for number, method in enumerate(CHOSEN.get(name, default)):
            chosen[f"{name}-{number}"] = method
    return chosen
