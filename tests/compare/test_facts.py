"""Which methods are shown as the systems of prunus, as controls, as compositions."""

from __future__ import annotations

from prunus import methods
from prunus.compare.columns import make_columns
from prunus.compare.facts import SYSTEMS, facts_of
from prunus.families import family_of
from tests.support.models import case_of


def test_systems_controls_and_compositions_are_told_apart() -> None:
    family = family_of(case_of("llava-clip").model)
    names = ["clse", "evoprune", "visipruner", "stepwise", "divprune", "random", "blind"]
    names.append("evoprune+divprune")
    columns = make_columns(names, [0.5], ["nominal"], [0], family)
    assert [one.cell.name for one in columns if one.refused] == ["stepwise"]  # told nevertheless
    facts = facts_of(columns, family.depth)
    assert {name for name, one in facts.items() if one["ours"]} == {
        "clse", "evoprune", "visipruner", "stepwise",
    }  # fmt: skip
    assert {name for name, one in facts.items() if one["control"]} == {"random", "blind"}
    assert [name for name, one in facts.items() if one["composition"]] == ["evoprune+divprune"]
    assert {*SYSTEMS} <= {*methods()}
