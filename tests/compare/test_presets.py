"""What is compared where nothing else is said."""

import pytest

from prunus.compare.facts import SYSTEMS
from prunus.compare.presets import PRESETS, methods_of
from prunus.evaluate.cells import make_cells


@pytest.mark.parametrize("builtin", [True, False])
def test_all_systems_and_compositions_are_among_the_methods(builtin: bool) -> None:
    names = methods_of(PRESETS["readme"], scenes=True, builtin=builtin)
    assert len(names) == len(set(names)) > 40
    wanted = set(SYSTEMS) - {"prunus"} | {"prunus@lean", "prunus@balanced", "prunus@careful"}
    missing = wanted - set(names)
    assert missing == (set() if builtin else {"stepwise"})  # which is trained
    assert {one.name for one in make_cells(names, (0.1,), (0,))} >= set(names)
    assert "ground-truth" not in methods_of(PRESETS["readme"], scenes=False)


def test_smoke_is_only_what_it_names() -> None:
    assert methods_of(PRESETS["smoke"], True, True) == ["fastv", "divprune", "random", "uniform"]
