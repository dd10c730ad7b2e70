"""What may be the answer: methods, compositions and budgets, and how each is written down."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from prunus.compare.columns import Column
from prunus.compare.presets import PRESETS, methods_of
from prunus.compare.verdicts import CONTROLS
from prunus.errors import PrunusError, shown
from prunus.evaluate.cells import cell_name
from prunus.inference.named import parse
from prunus.method import Method

#: Averages of visual tokens over all decoder layers, as shares.
KEEPS = (0.5, 0.333, 0.222, 0.111)


def default_methods(builtin: bool) -> list[str]:
    """Every method and composition that needs nothing trained, and (of a ``builtin`` model) those
    for which something ships; no controls."""
    found = []
    for name in methods_of(PRESETS["leaderboard"], scenes=False, builtin=builtin):
        if name not in CONTROLS and not is_control(name):
            found.append(name)
    return found


def is_control(name: str) -> bool:
    """Whether a method says of itself that it is there to be beaten."""
    return any(one.kind.paper.startswith("control") for one in parse(name))


def check_methods(names: Sequence[str]) -> None:
    """Raise PrunusError where one of ``names`` cannot be the answer."""
    for name in names:
        if name in CONTROLS:
            raise PrunusError(f"{shown(name)} is a control, with which no model can be run")


def label(column: Column) -> str:
    """``divprune at 33.3 %``, ``clse at 64``, ``visipruner``."""
    keep = column.cell.keep
    if keep is None:
        return column.cell.name
    share = f"{100 * keep:.3g} %" if isinstance(keep, float) else str(keep)
    return f"{column.cell.name} at {share}"


def python_line(column: Column, names: Sequence[str]) -> str:
    """The call that prunes as ``column`` does, which is one of ``names`` as they were given."""
    params: dict[str, Any] = {}
    if column.cell.keep is not None:
        params["keep"] = column.cell.keep
    if column.cell.seed is not None:
        params["seed"] = column.cell.seed
    budget = _budget(column)
    more = {} if budget is None else {"budget": budget}
    text = _given(column, names)
    if len(column.cell.methods) > 1:
        made = ", ".join(
            f"prunus.methods()[{_quoted(one.name)}]({_arguments(_own(one))})"
            for one in _unbound(column, text)
        )
        return f"prunus.prune(model, [{made}]{_more(more)})"
    name, *settings = re.split(r":(?=\w+=)", text)
    own = parse(text)[0].params if settings else {}
    said = {one.partition("=")[0]: own[one.partition("=")[0]] for one in settings}
    return f"prunus.prune(model, {_quoted(name)}{_more({**said, **params, **more})})"


def cli_line(column: Column, names: Sequence[str], model: str) -> str:
    """The command that does so."""
    cell, text = column.cell, _given(column, names)
    words = ["prunus", "run", "photo.jpg", "--prompt", "What is this?", "--model", model]
    if len(cell.methods) > 1:
        parts = [one.name for one in parse(text)]
        for place, one in enumerate(_unbound(column, text)):
            keep = getattr(one, "keep", None)
            if keep is not None and ":keep=" not in parts[place]:
                parts[place] += f":keep={keep!r}"
        words += ["--method", "+".join(parts)]
    else:
        words += ["--method", text]
        if cell.keep is not None:
            words += ["--keep", repr(cell.keep)]
    if cell.seed is not None and len(cell.methods) == 1:
        words += ["--param", f"seed={cell.seed}"]
    if (budget := _budget(column)) is not None:
        words += ["--budget", budget]
    return " ".join(f'"{word}"' if " " in word else shlex.quote(word) for word in words)


def _budget(column: Column) -> str | None:
    """What has to be said of the budget: nothing where the nominal one is meant, or the same."""
    counted = all(getattr(one, "keep", None) is not None for one in column.cell.methods)
    return "true" if column.budget == "true" and counted else None


def _given(column: Column, names: Sequence[str]) -> str:
    """The name as it was given, with the path of its file if it has one."""
    return next(one for one in names if cell_name(one) == column.cell.name)


def _unbound(column: Column, text: str) -> list[Method]:
    """The methods of a composition, without what they have learned for a model."""
    bound = column.cell.methods
    return [
        one.make(
            **{
                name: getattr(there, name)
                for name in ("keep", "seed")
                if one.takes(name) and getattr(there, name, None) is not None
            }
        )
        for one, there in zip(parse(text), bound, strict=True)
    ]


def _own(method: Method) -> dict[str, Any]:
    """Parameters that are not as by default."""
    return {
        field.name: getattr(method, field.name)
        for field in dataclasses.fields(method)  # type: ignore[arg-type]
        if field.init and getattr(method, field.name) != field.default
    }


def _arguments(params: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={_quoted(value) if isinstance(value, str) else repr(value)}"
        for name, value in params.items()
    )


def _more(params: dict[str, Any]) -> str:
    return f", {_arguments(params)}" if params else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
