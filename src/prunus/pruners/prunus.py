"""The compositions of prunus: merge in the tower, then choose, under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from prunus.method.composition import Composition

#: Share that a merge in the tower leaves for an average asked for: a third of all for a ninth.
_THIRD = ((0.0, 0.25), (1 / 9, 1 / 3), (2 / 9, 5 / 12), (1 / 3, 1 / 2))


def _stages(tower: dict[str, Any], behind: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return (tower, behind)


@dataclass(frozen=True)
class Prunus(Composition):
    """Stages that no single method has: tokens merge inside the vision tower, which makes the tower
    itself cheaper, and what is left is chosen from before the language model.

    ``prunus@lean`` is the cheapest in all, ``prunus@careful`` loses the fewest answers. Needs
    nothing trained or measured. How they were found, and where they fail: `docs/compositions.md`.
    """

    name = "prunus"
    summary = "merges in the vision tower, then chooses before the language model"
    kind = "merge"
    default = _stages(
        {"method": "evoprune@noattn", "leaves": _THIRD, "params": {"per": "video"}},
        {"method": "divprune"},
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "lean": {"stages": default},
        "balanced": {"stages": default},
        "careful": {"stages": default},
    }
