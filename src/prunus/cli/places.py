"""Options that are files or folders: an empty text is none, though Python takes it for ``.``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from prunus.cli.errors import BadInput

if TYPE_CHECKING:
    import typer


def check_places(app: typer.Typer, arguments: Sequence[str]) -> None:
    """Raise BadInput where an option of ``app`` that is a path is given an empty text, which a
    variable of a shell that is not set leaves behind."""
    empty = {name for name, value in _given(arguments) if not value.strip()}
    if not empty:
        return
    if wrong := sorted(empty & set(_paths(app))):
        raise BadInput(
            f"{wrong[0]} is empty: give the name of a file or folder (. is the folder that you are "
            "in), or leave it out"
        )


def _given(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options with their values, as far as they can be told without knowing the options."""
    for one in arguments:
        if one.startswith("--") and "=" in one:
            name, _, value = one.partition("=")
            yield name, value
    for name, value in pairwise(arguments):
        if name.startswith("--") and "=" not in name:
            yield name, value


def _paths(app: typer.Typer) -> Iterator[str]:
    """Names of all options of all commands that are paths."""
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _paths(group.typer_instance)
    for command in app.registered_commands:
        if command.callback is not None:
            for name, kind in get_type_hints(command.callback, include_extras=True).items():
                if _is_path(kind):
                    yield from _called(name, kind)


def _is_path(kind: Any) -> bool:
    return kind is Path or any(_is_path(one) for one in get_args(kind))


def _called(name: str, kind: Any) -> Sequence[str]:
    told = [one for info in get_args(kind)[1:] for one in getattr(info, "param_decls", None) or ()]
    return told or [f"--{name.replace('_', '-')}"]
