"""A few rounds beside the dense model, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import prunus
from prunus.bench.generation import Timed
from prunus.bench.quick import _one, quick, words
from tests.support.command_line import Cli, refused
from tests.support.models import case_of

DENSE = [Timed([2.0, 3.0, 4.0]), Timed([4.0, 5.0, 6.0]), Timed([20.0, 21.0, 22.0])]


def test_ratios_of_rounds_and_what_is_said_of_them() -> None:
    own = [Timed([1.0, 1.5, 2.0]), Timed([2.0, 2.5, 3.0]), Timed([10.0, 10.5, 11.0])]
    found, dense = _one(own, DENSE), _one(DENSE, DENSE)
    assert found.first == 2.0 and found.first_ratio == (0.5, 0.5, 0.5)
    assert found.token == 0.5 and found.token_ratio == (0.5, 0.5, 0.5)
    assert not found.noisy
    half = "0.50 of it (median of rounds, quartiles 0.50 and 0.50)"
    assert words(found, dense) == [
        f"first token 2000.0 ms, unpruned 4000.0 ms: {half}",
        f"each further token 500.0 ms, unpruned 1000.0 ms: {half}",
    ]


def test_noise_is_said() -> None:
    own = [Timed([1.0, 1.5, 2.0]), Timed([4.0, 4.5, 5.0]), Timed([5.0, 5.5, 6.0])]
    found = _one(own, DENSE)
    assert found.noisy and "noisy: 3 rounds" in words(found, found)[-1]


def test_one_token_has_no_further_ones() -> None:
    own = [Timed([1.0])] * 3
    found = _one(own, own)
    assert found.token is None and found.token_ratio is None and len(words(found, found)) == 1


def test_all_take_turns() -> None:
    case, steps = case_of("llava-clip"), []
    settings = {"dense": (), "few": (prunus.CLSE(keep=5),)}
    inputs = case.prompts.rows(1)
    found = quick(case.model, inputs, settings, 2, rounds=3, step=lambda: steps.append(1))
    assert list(found) == ["dense", "few"] and len(steps) == 2 * (3 + 1)
    assert found["dense"].first_ratio == (1.0, 1.0, 1.0)
    assert found["few"].rounds == 3 and found["few"].token is not None


@pytest.mark.parametrize("as_json", [False, True])
def test_run_time(cli: Cli, picture: Path, as_json: bool) -> None:
    options = ("--prompt", "what?", "--keep", 64, "--max-new-tokens", 2, "--time")
    result = cli("run", picture, *options, *(["--json"] if as_json else []))
    assert result.code == 0, result.err
    if as_json:
        times = result.json["time"]
        assert list(times) == ["dense", "pruned"]
        assert times["pruned"]["first"] > times["pruned"]["token"] > 0
        assert len(times["pruned"]["first_ratio"]) == 3
    else:
        assert "time            first token" in result.out and "unpruned" in result.out


def test_run_time_needs_something_to_compare(cli: Cli, picture: Path) -> None:
    refused(cli("run", picture, "--prompt", "what?", "--method", "none", "--time"), "--method none")
