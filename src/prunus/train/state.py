"""The checkpoint of a run: everything that it needs to go on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError, PrunusFileError
from prunus.io import checkpoint
from prunus.io.forms import misfit

NAME = "checkpoint.pt"
_PLAIN = {"run": dict[str, Any], "step": int, "seconds": float}


@dataclass
class State:
    """A run after ``step`` steps.

    Noise is drawn anew at every step from a seed of that step, and data come by their position, so
    that no state of a random generator belongs here.

    Attributes:
        run: what it is a run of (model, data, settings); plain values.
        step: steps done; seconds: time that they took.
        objective: weights and running statistics; optimizer, scaler: their states (the scaler's is
            empty unless training in float16).
    """

    run: dict[str, Any]
    step: int
    seconds: float
    objective: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write it into ``folder``, whole or not at all."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        checkpoint.save(folder / NAME, values)

    @classmethod
    def load(cls, folder: Path) -> State:
        """Read what :meth:`save` wrote.

        Raises:
            PrunusFileError: it cannot be read, or is a checkpoint of something else.
        """
        values = checkpoint.load(folder / NAME)
        if set(values) != {field.name for field in fields(cls)}:
            raise PrunusFileError(f"{str(folder / NAME)!r} is no checkpoint of a selector's run")
        wrong = [misfit(values[name], kind, name) for name, kind in _PLAIN.items()]
        wrong += [
            f"{name} is no state"
            for name in ("objective", "optimizer", "scaler")
            if not isinstance(values[name], Mapping)
        ]
        if told := [one for one in wrong if one is not None]:
            raise PrunusFileError(f"the checkpoint {str(folder / NAME)!r} is damaged: {told[0]}")
        return cls(**values)

    def check(self, run: Mapping[str, Any]) -> None:
        """Refuse to go on with another ``run``.

        Raises:
            PrunusError: model, data or a setting differs; the message names all that do.
        """
        before, now = _flat(self.run), _flat(run)
        changed = [
            f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        ]
        if changed:
            raise PrunusError(
                f"the run to go on with is another one: {', '.join(changed)}. Give what it was "
                "started with, or train into another folder"
            )


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse to write over a run, or to go on where there is none.

    Raises:
        PrunusError: so.
    """
    exists = (folder / NAME).is_file()
    if exists and not resume:
        raise PrunusError(
            f"{str(folder)!r} holds a run already: go on with it (resume), or choose another folder"
        )
    if resume and not exists:
        raise PrunusError(
            f"there is no run in {str(folder)!r} to go on with (no {NAME}): leave out resume to "
            "start one"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
