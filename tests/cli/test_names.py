"""Names and budgets as people type them, what is refused, and what --json carries."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import prunus
from prunus.errors import PrunusError, PrunusTypeError
from prunus.evaluate.cells import make_cells
from prunus.inference.named import as_spelled, build_methods, parse_one
from prunus.inference.params import parse_keep
from tests.support.command_line import Cli, refused

Q = ("--prompt", "how many objects are there?", "--max-new-tokens", 1)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("CLSE", "clse"),
        ("PyramidDrop", "pyramiddrop"),
        ("clse_m", "clse-m"),
        ("OneShot", "one-shot"),
        ("clse@Released", "clse@released"),
        ("CLSE-Released", "clse@released"),
        ("EvoPrune:keep=0.3+CLSE", "evoprune:keep=0.3+clse"),
        ("nosuch", "nosuch"),
        ("Dir/My_File.py:Mine+CLSE", "Dir/My_File.py:Mine+clse"),
    ],
)
def test_names_are_found_whatever_their_case(typed: str, meant: str) -> None:
    assert as_spelled(typed) == meant


def test_a_name_in_another_case_is_the_same_method_everywhere() -> None:
    assert parse_one("FastV@192") == parse_one("fastv@192")
    assert build_methods("FASTV", "64", []) == build_methods("fastv", "64", [])
    keys = [cell.key for cell in make_cells(["Random", "Ground-Truth", "FastV@Paper"])]
    assert keys == [cell.key for cell in make_cells(["random", "ground-truth", "fastv@paper"])]
    assert build_methods("None", None, []) is None
    with pytest.raises(PrunusError, match="did you mean 'pyramiddrop'"):
        build_methods("PyramiDropp", None, [])


@pytest.mark.parametrize(
    ("text", "keep"), [("25%", 0.25), ("33.3 %", 0.333), ("100%", 1.0), (".5%", 0.005)]
)
def test_budgets_in_percent(text: str, keep: float) -> None:
    assert parse_keep(text) == pytest.approx(keep)
    assert prunus.CLSE(keep=text).keep == pytest.approx(keep)  # type: ignore[arg-type]
    [cell] = make_cells(["fastv"], [text])[1:]  # type: ignore[list-item]
    assert cell.keep == pytest.approx(keep)


@pytest.mark.parametrize("text", ["0%", "101%", "%", "x%", "-5%", "25%%", "1e3%"])
def test_percents_that_are_no_share(text: str) -> None:
    with pytest.raises(PrunusError, match="25%"):
        parse_keep(text)
    with pytest.raises(PrunusError, match="25%"):
        prunus.CLSE(keep=text)  # type: ignore[arg-type]


def test_a_text_without_percent_is_no_budget_in_python() -> None:
    with pytest.raises(PrunusTypeError, match="keep='64' is not a number"):
        prunus.CLSE(keep="64")  # type: ignore[arg-type]


def test_percent_on_the_command_line(cli: Cli, picture: Path) -> None:
    facts = cli("run", picture, *Q, "--method", "Uniform", "--keep", "25%", "--json").json
    assert facts["tokens"]["kept"] == 144 and facts["method"] == "uniform"


def test_fixed_without_a_selection_is_refused(cli: Cli, picture: Path) -> None:
    result = cli("run", picture, *Q, "--method", "fixed")
    refused(result, "fixed does nothing by itself", "--param indices=...")
    with pytest.raises(PrunusError, match="give it indices or pairs"):
        prunus.method.make_method("fixed", {})
    found = cli("run", picture, *Q, "--method", "fixed", "--param", "indices=[1,5,9]", "--json")
    assert found.json["tokens"]["kept"] == 3
    assert prunus.method.make_method("fixed", {"indices": [1]}).neutral() is not None


def test_json_carries_warnings_and_nothing_else_is_printed(
    cli: Cli, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunus.inference import answer

    plain = cli("run", picture, *Q, "--json")
    assert plain.json["warnings"] == []
    asked = answer.prune

    def warned(*args: object, **options: object) -> object:
        warnings.warn("prunus: something\nodd", stacklevel=1)
        return asked(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(answer, "prune", warned)
    result = cli("run", picture, *Q, "--json")
    assert result.json["warnings"] == ["prunus: something odd"]
    assert "warning: prunus: something odd" in result.err
    monkeypatch.undo()


def test_version_on_one_line(cli: Cli) -> None:
    result = cli("--version")
    assert result.code == 0 and result.out.count("\n") == 1
    assert result.out.startswith(f"prunus {prunus.__version__} (transformers ")


def test_the_shell_completes_commands_and_options() -> None:
    def completed(words: str) -> list[str]:
        place = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run(
            [sys.executable, "-m", "prunus"],
            env={**os.environ, **place, "_PRUNUS_COMPLETE": "complete_bash"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    assert "methods" in completed("prunus me")
    assert {"--method", "--max-new-tokens"} <= set(completed("prunus run --m"))
