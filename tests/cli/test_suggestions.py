"""What errors and help say to type exists: options of some command, parameters of some method."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import prunus
from prunus.cli import main
from prunus.cli.app import app
from prunus.method import methods

FOLDER = Path(prunus.__file__).parent
#: Of other programs.
NOT_OURS = {
    "--multi_gpu",  # accelerate
    "--log_samples",  # lmms-eval
    "--mm-encoder-tp-mode",  # vLLM
    "--pipeline-parallel-size",
    "--extra-index-url",  # pip
}
#: Recipes have parsers of their own.
SOURCES = sorted(set(FOLDER.rglob("*.py")) - set((FOLDER / "recipes").rglob("*.py")))


def options(command: Any) -> Iterator[str]:
    """Long names of the options of ``command`` and of what is below it."""
    for param in command.params:
        yield from (name for name in (*param.opts, *param.secondary_opts) if name[:2] == "--")
    if hasattr(command, "list_commands"):  # calibrators are made when they are asked for
        context = command.make_context("prunus", [], resilient_parsing=True)
        for name in command.list_commands(context):
            yield from options(command.get_command(context, name))


def texts(path: Path) -> Iterator[str]:
    """Texts in a module, of f-strings what is written out, without what documents it."""
    tree = ast.parse(path.read_text())
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        value = getattr(node, "value", None)
        if not isinstance(node, ast.Constant) or not isinstance(value, str):
            continue
        if id(node) not in documents and not re.fullmatch(r"--\S+", value):
            yield value  # what is an option alone is an argument of another program


def test_options_that_are_named_exist() -> None:
    known = set(options(typer.main.get_command(app))) | {"--help", *NOT_OURS}
    named = {
        (path.name, found)
        for path in SOURCES
        for text in texts(path)
        for found in re.findall(r"(?<![\w-])--[a-z][\w-]*\w", text)
    }
    assert len(named) > 50
    assert {one for one in named if one[1] not in known} == set()


def test_parameters_that_are_named_exist() -> None:
    known = {field.name for cls in methods().values() for field in dataclasses.fields(cls)}
    named = {
        (path.name, found)
        for path in SOURCES
        for text in texts(path)
        for found in re.findall(r"--param (?:\w+\.)?([a-z]\w*)=", text)
    }
    assert named and {one for one in named if one[1] not in known} == set()


@pytest.mark.parametrize(
    ("command", "name", "told"),
    [
        ("run", "calibration", "--param calibration=...: a parameter of fitprune and visipruner"),
        ("run", "keep-ratio", "No such option: --keep-ratio"),
        ("run", "layer-threshold", "--param layer_threshold=...: a parameter of visipruner"),
        ("methods", "calibration", "No such option: --calibration (see"),
    ],
)
def test_a_parameter_that_is_given_as_an_option(
    command: str, name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, f"--{name}", "1"])
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_messages_about_options_are_not_in_pythons_form() -> None:
    """``budget='nominal'`` is no word of the command line: "the nominal budget" is one of both."""
    written = [(path.name, text) for path in SOURCES for text in texts(path)]
    assert [one for one in written if re.search(r"\bbudget='", one[1])] == []
    assert any("the nominal budget" in text for _, text in written)
