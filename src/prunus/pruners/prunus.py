"""The compositions of prunus: merge in the tower, choose behind it, filter in the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from prunus.method.composition import Composition

_NINTH, _TWO, _THIRD = 1 / 9, 2 / 9, 1 / 3


def _stages(
    tower: dict[str, Any], merged: tuple[float, ...], times: tuple[float, ...]
) -> tuple[dict[str, Any], ...]:
    """``merged`` is what the merge in the tower leaves where averages of a ninth, two ninths and a
    third are asked for; what is diverse of it enters the language model, so many ``times`` the
    average; attention at a third of the depth makes the average up."""
    asked = (_NINTH, _TWO, _THIRD)
    return (
        {**tower, "leaves": tuple(zip(asked, merged, strict=True))},
        {
            "method": "divprune",
            "leaves": tuple((b, b * more) for b, more in zip(asked, times, strict=True)),
        },
        {"method": "fastv", "depth": {"layer": 1 / 3}},
    )


@dataclass(frozen=True)
class Prunus(Composition):
    """Stages that no single method has: tokens merge inside the vision tower, which makes the tower
    itself cheaper; of what is left a diverse subset enters the language model, somewhat more than
    the average that is asked for; and at a third of the depth the tokens that the prompt attends to
    stay, so many that the average over all layers is met.

    ``prunus@lean`` is the cheapest in all, ``prunus@careful`` loses the fewest answers. Needs
    nothing trained or measured. How they were found, and where they fail: `docs/compositions.md`.
    """

    name = "prunus"
    summary = "merges in the tower, keeps what is diverse, then relevant"
    kind = "merge"
    default = _stages(
        {"method": "tome"},
        (0.25 + 0.75 * _NINTH, 0.25 + 0.75 * _TWO, 0.25 + 0.75 * _THIRD),
        (1.3, 1.3, 1.3),
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "lean": {
            "stages": _stages(
                {"method": "tome"}, (1.5 * _NINTH, 1.2 * _TWO, 1.2 * _THIRD), (1.3, 1.1, 1.1)
            )
        },
        "balanced": {"stages": default},
        "careful": {
            "stages": _stages(
                {"method": "evoprune@hidden", "params": {"per": "video", "protect": 0.0}},
                (0.25 + 0.75 * _NINTH, 0.25 + 0.75 * _TWO, 0.25 + 0.75 * _THIRD),
                (1.3, 1.3, 1.3),
            )
        },
    }
