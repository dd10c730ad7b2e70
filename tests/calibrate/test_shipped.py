"""Calibrations that ship for the built-in models: found by the weights, said, and overridden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import prunus
from prunus.builtin import BUILTIN, load_builtin
from prunus.families import family_of
from prunus.method import methods
from prunus.method.calibration import Calibration, Measured, shipped
from prunus.pruners.visipruner import VisiPruner
from tests.support.command_line import Cli

MEASURED = sorted(name for name, kind in methods().items() if kind.measured)
PLACE = Path(prunus.__file__).parent / "method" / "calibrations"


@pytest.fixture(scope="module", params=sorted(BUILTIN))
def builtin(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, load_builtin(request.param)[0]


def test_each_built_in_model_has_one_for_each_method_that_wants_it(
    builtin: tuple[str, Any],
) -> None:
    name, model = builtin
    family = family_of(model)
    assert MEASURED == ["fitprune", "visipruner"]
    for method in MEASURED:
        bound = methods()[method]().bind(family)
        found = bound.calibration  # type: ignore[attr-defined]
        assert isinstance(found, Measured) and found.ships
        assert (found.calibration.model, found.calibration.method) == (name, method)
        for parameter in methods()[method].measured:
            value = found.calibration.params[parameter]
            assert getattr(bound, parameter) == (tuple(value) if isinstance(value, list) else value)
        assert bound.bind(family) == bound
    assert {(one.model, one.method) for one in shipped()} == {
        (model, method) for model in BUILTIN for method in MEASURED
    }


def test_other_weights_are_another_model(builtin: tuple[str, Any]) -> None:
    _, model = builtin
    family = family_of(model)
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        kept = weight.clone()
        weight.mul_(1.5)
        try:
            assert VisiPruner().bind(family) == VisiPruner()
            note = methods()["fitprune"]().bind(family).remark(family.depth)  # type: ignore[attr-defined]
            assert "not calibrated for this model" in note
        finally:
            weight.copy_(kept)
    assert VisiPruner().bind(family) != VisiPruner()


@pytest.mark.parametrize(
    "given",
    [
        {"tokens_threshold": 0.3},
        {"relative": 0.1},
        {"layer_threshold": 0.9},
        {"stages": ("shallow",)},
        {"stages": ("deep",)},
    ],
)
def test_what_is_given_goes_before_what_ships(given: dict[str, Any]) -> None:
    method = VisiPruner(**given)
    assert method.bind(family_of(load_builtin("tiny-llava")[0])) == method


def test_a_file_goes_before_what_ships(tmp_path: Path) -> None:
    family = family_of(load_builtin("tiny-llava")[0])
    ours = Calibration.load(PLACE / "tiny-llava-visipruner.json")
    replace(ours, params={**ours.params, "tokens_threshold": 0.5}).save(tmp_path / "c.json")
    bound = VisiPruner(calibration=tmp_path / "c.json").bind(family)
    assert bound.tokens_threshold == 0.5 and bound.remark(12) is None
    part = VisiPruner(calibration=tmp_path / "c.json", tokens_threshold=0.7).bind(family)
    assert part.tokens_threshold == 0.7
    assert "calibration of tiny-llava" in repr(bound) and len(repr(bound)) < 700


def test_the_command_says_it(cli: Cli, picture: Path) -> None:
    ask = ("--prompt", "how many stars are there?", "--max-new-tokens", 1, "--json")
    for method in MEASURED:
        notes = cli("run", picture, *ask, "--method", method).json["notes"]
        assert notes[0].startswith(f"{method} goes by what was measured on tiny-llava")
    own = cli("run", picture, *ask, "--method", "visipruner", "--param", "tokens_threshold=0.2")
    assert own.json["notes"] == []


@pytest.mark.full
def test_the_command_that_made_them_makes_them_again(cli: Cli, tmp_path: Path) -> None:
    made = tmp_path / "c.json"
    cli("calibrate", "visipruner", "--model", "tiny-qwen", "--output", made)
    there = Calibration.load(PLACE / "tiny-qwen-visipruner.json")
    assert Calibration.load(made).params == pytest.approx(dict(there.params), rel=0.02)
