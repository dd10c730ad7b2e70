"""What may be the answer, and the lines to paste: they prune as the candidate did."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

import prunus
from prunus.compare.columns import Column, make_columns
from prunus.compare.identity import plain
from prunus.errors import PrunusError
from prunus.families import family_of
from prunus.inference.named import build_methods
from prunus.method.budget import Meaning
from prunus.tune.candidates import check_methods, cli_line, default_methods, label, python_line
from tests.support.models import case_of

OWN = """
from dataclasses import dataclass

from prunus.pruners.uniform import Uniform


@dataclass(frozen=True)
class Tuned(Uniform):
    name = "tune-own"
"""
NAMES = [
    "divprune", "fastv", "clse@hybrid:cutoff=0.2", "prunus@lean", "random", "visipruner",
    "evoprune:keep=0.6+clse@attn:cutoff=0.3", "tome+divprune",
]  # fmt: skip


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    (tmp_path / "own.py").write_text(OWN)
    return [*NAMES, f"{tmp_path / 'own.py'}:Tuned"]


def columns(names: list[str], keeps: list[float | int]) -> list[Column]:
    family = family_of(case_of("llava-clip").model)
    found = make_columns(names, keeps, ["true"], [0], family)
    return [one for one in found if one.cell.prunes]


@pytest.mark.parametrize("keep", [0.45, 9])
def test_the_lines_prune_as_the_candidate(names: list[str], keep: float) -> None:
    model = case_of("llava-clip").model
    for column in columns(names, [keep]):
        assert column.refused is None
        wanted = prunus.prune(model, list(column.cell.methods), budget=meaning_of(column))
        run = eval(python_line(column, names), {"prunus": prunus, "model": model})
        assert same(run, wanted), python_line(column, names)
        words = shlex.split(cli_line(column, names, "my/model"))
        assert words[:2] == ["prunus", "run"] and words[words.index("--model") + 1] == "my/model"
        given = words[words.index("--keep") + 1] if "--keep" in words else None
        params = [words[n + 1] for n, word in enumerate(words) if word == "--param"]
        made = build_methods(words[words.index("--method") + 1], given, params)
        budget = words[words.index("--budget") + 1] if "--budget" in words else "nominal"
        assert made is not None and budget in ("true", "nominal")
        run = prunus.prune(model, list(made), budget="true" if budget == "true" else "nominal")
        assert same(run, wanted), words


def meaning_of(column: Column) -> Meaning:
    """As the answers were asked."""
    counted = all(getattr(one, "keep", None) is not None for one in column.cell.methods)
    return column.budget if counted else "nominal"


def same(one: prunus.Run, other: prunus.Run) -> bool:
    """Whether two runs prune alike: their methods, the meaning of budgets, and what they leave."""
    return (
        [plain(method) for method in one.methods] == [plain(method) for method in other.methods]
        and one._plan.budget._meaning == other._plan.budget._meaning
        and one.asked(64) == other.asked(64)
    )


def test_lines_say_no_more_than_is_needed(names: list[str]) -> None:
    found = {one.cell.name: one for one in columns(names, [0.45])}
    assert python_line(found["divprune"], names) == 'prunus.prune(model, "divprune", keep=0.45)'
    assert python_line(found["fastv"], names) == (
        'prunus.prune(model, "fastv", keep=0.45, budget="true")'
    )
    assert python_line(found["visipruner"], names) == 'prunus.prune(model, "visipruner")'
    assert python_line(found["random"], names) == (
        'prunus.prune(model, "random", keep=0.45, seed=0, budget="true")'
    )
    assert cli_line(found["prunus@lean"], names, "m") == (
        'prunus run photo.jpg --prompt "What is this?" --model m --method prunus@lean --keep 0.45'
    )
    assert label(found["divprune"]) == "divprune at 45 %"
    assert label(found["visipruner"]) == "visipruner"
    (count,) = columns(["divprune"], [64])
    assert label(count) == "divprune at 64"


def test_controls_are_no_answers() -> None:
    names = default_methods(builtin=False)
    assert {"divprune", "fastv", "prunus@lean", "visipruner"} <= set(names)
    assert not {"random", "uniform", "blind", "ground-truth", "stepwise", "one-shot"} & set(names)
    assert set(default_methods(builtin=True)) - set(names) == {"stepwise"}
    with pytest.raises(PrunusError, match="'blind' is a control"):
        check_methods(["divprune", "blind"])
    check_methods(["random"])  # whoever names it may have it


def test_a_run_of_the_line_keeps_what_was_asked() -> None:
    case = case_of("llava-clip")
    (column,) = columns(["fastv"], [9])
    run = eval(python_line(column, ["fastv"]), {"prunus": prunus, "model": case.model})
    with run, torch.no_grad():
        run.prompt_ends()
        case.model(**case.prompts.rows(1))
    assert run.report()["tokens"]["average"] == pytest.approx(9, abs=0.5)
