"""Parameters of a method that were measured on a model, in a small JSON file."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prunus.errors import PrunusError, shown
from prunus.io.files import write_text
from prunus.io.jsons import parse, read_bytes
from prunus.method.registry import find_method, make_method
from prunus.method.view import Facts

_FIELDS = {"method": str, "model": str, "depth": int, "params": dict, "measured": dict}
_LATER = {"made_on": dict}  # not in files of earlier versions
_TOLERANCE = 0.01  # of a weight: what rounding to half precision changes
_JSON = {str: "a text", int: "a whole number", dict: "an object"}


@dataclass(frozen=True)
class Calibration:
    """What was found for one method on one model.

    Attributes:
        method: name of the method.
        model: name or path of the model, for people; ``depth``: its decoder layers.
        params: parameters of the method by name: numbers, or lists of whole ones.
        measured: what they follow from; any JSON.
        made_on: what :func:`made_on` says of the model; None in files of earlier versions.
    """

    method: str
    model: str
    depth: int
    params: Mapping[str, float | int | Sequence[int]]
    measured: Mapping[str, Any]
    made_on: Mapping[str, Any] | None = None

    def __hash__(self) -> int:
        return hash((self.method, self.model, self.depth))

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file that :meth:`save` wrote.

        Raises:
            PrunusError: no such file, not one of these, or parameters that the method refuses; the
                message names the file.
        """
        facts = parse(read_bytes(path, "the calibration"), f"the calibration {str(path)!r}")
        if isinstance(facts, dict) and facts.get("made_on", 0) is None:
            del facts["made_on"]
        if not isinstance(facts, dict) or set(facts) - set(_LATER) != set(_FIELDS):
            raise PrunusError(
                f"{str(path)!r} is no calibration: it must be an object with {', '.join(_FIELDS)} "
                "(make one with `prunus calibrate`)"
            )
        for name, kind in {**_FIELDS, **_LATER}.items():
            if name in facts and type(facts[name]) is not kind:
                raise PrunusError(f"the calibration {str(path)!r}: {name} must be {_JSON[kind]}")
        try:
            if facts["depth"] < 1:
                raise PrunusError(f"depth={shown(facts['depth'])}: a model has at least one layer")
            _check_params(facts["method"], facts["params"])
            if "made_on" in facts:
                _check_made_on(facts["made_on"])
        except PrunusError as error:
            raise PrunusError(f"the calibration {str(path)!r}: {error}") from error
        return cls(**facts)

    def save(self, path: str | Path) -> None:
        """Write it as JSON.

        Raises:
            PrunusError: a number in it is none.
        PrunusFileError: the file cannot be written; the old one is unchanged.
        """
        try:
            text = json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        except ValueError as error:  # NaN or infinity
            raise PrunusError(f"the calibration cannot be written: {error}") from error
        write_text(path, text + "\n")

    def check(self, method: str, model: Facts) -> None:
        """Raise PrunusError unless this is for ``method`` and a model built like ``model``; warn
        where weights are others, or nobody knows."""
        if self.method != method:
            raise PrunusError(f"this calibration is for {self.method}, not for {method}")
        if self.depth != model.depth:
            raise PrunusError(
                f"this calibration was made on {self.model} with {self.depth} decoder layers, the "
                f"model has {model.depth}: calibrate again"
            )
        if self.made_on is None:
            warnings.warn(
                f"prunus: this calibration of {self.model} does not say what model that is (an "
                "earlier version wrote it): calibrate again, or make sure that it is this one",
                stacklevel=2,
            )
            return
        there, here = self.made_on["architecture"], model.architecture
        for name in {**there, **here}:
            if there.get(name) != here.get(name):
                raise PrunusError(
                    f"this calibration was made on {self.model}, whose {name} is "
                    f"{there.get(name)}, the model has {here.get(name)}: calibrate again"
                )
        weights = torch.tensor(self.made_on["weights"], dtype=torch.float32)
        if not _alike(weights, model.fingerprint()):
            warnings.warn(
                f"prunus: this calibration was made on {self.model}, and the model has other "
                "weights (of the same shape): calibrate again unless they hardly differ",
                stacklevel=2,
            )


class Measured(NamedTuple):
    """A calibration in memory, which fits the model; ``ships``: with prunus."""

    calibration: Calibration
    ships: bool

    def __repr__(self) -> str:
        return f"<the calibration of {self.calibration.model}>"

    def remark(self) -> str | None:
        """Where values come from that nobody named; None where a file was."""
        if not self.ships:
            return None
        method, model = self.calibration.method, self.calibration.model
        return (
            f"{method} goes by what was measured on {model}, which ships with prunus (to measure "
            f"anew: `prunus calibrate {method}`, then --param calibration=FILE)"
        )


def measured_for(
    method: str, given: str | Path | Measured | None, unset: bool, model: Facts
) -> Measured | None:
    """The calibration of ``method`` for ``model``: the ``given`` one, or, where there is none and
    what it says is ``unset``, that which ships with prunus for this very model, if one does.

    Raises:
        PrunusError: the given one does not fit.
    """
    if isinstance(given, Measured):
        given.calibration.check(method, model)
        return given
    if given is not None:
        found = Calibration.load(given)
        found.check(method, model)
        return Measured(found, ships=False)
    if not unset:
        return None
    fitting = (one for one in shipped() if one.method == method and _is_of(one, model))
    one = next(fitting, None)
    return None if one is None else Measured(one, ships=True)


@cache
def shipped() -> tuple[Calibration, ...]:
    """The calibrations that ship with prunus: for the built-in models."""
    with as_file(files("prunus.method").joinpath("calibrations")) as folder:
        return tuple(Calibration.load(path) for path in sorted(folder.glob("*.json")))


def _is_of(one: Calibration, model: Facts) -> bool:
    """Whether it was made on ``model``, weights and all."""
    known = one.made_on
    if known is None or one.depth != model.depth:
        return False
    if known["architecture"] != dict(model.architecture):
        return False
    weights = torch.tensor(known["weights"], dtype=torch.float32)
    return _alike(weights, model.fingerprint())


def made_on(model: Facts) -> dict[str, Any]:
    """What tells models apart: ``architecture``, kinds and sizes, and some of its ``weights``."""
    return {"architecture": dict(model.architecture), "weights": model.fingerprint().tolist()}


def _alike(there: Tensor, here: Tensor) -> bool:
    """Whether weights are the same up to rounding; not if any is NaN."""
    if there.shape != here.shape:
        return False
    scale = there.abs().amax(1, keepdim=True)
    return bool(((here - there).abs() <= _TOLERANCE * scale).all())


def _check_made_on(facts: Mapping[str, Any]) -> None:
    """Raise PrunusError unless it is what :func:`made_on` writes."""
    kinds, rows = facts.get("architecture"), facts.get("weights")
    if not isinstance(kinds, dict) or not all(isinstance(one, str | int) for one in kinds.values()):
        raise PrunusError("made_on.architecture must name kinds and sizes")
    numbers = isinstance(rows, list) and all(
        isinstance(row, list) and row and all(type(one) is float for one in row) for row in rows
    )
    if not numbers or len({len(row) for row in rows}) != 1:  # type: ignore[arg-type, union-attr]
        raise PrunusError("made_on.weights must be a list of lists of equally many numbers")


def _check_params(method: str, params: dict[str, Any]) -> None:
    """Raise PrunusError for parameters that are no numbers, or that ``method`` does not take."""
    for name, value in params.items():
        if type(value) is int or _is_list(value):
            continue  # its range is the method's to check
        if type(value) is not float or not math.isfinite(value):
            raise PrunusError(f"{name}={shown(value)} must be a number")
    needed = find_method(method)[0].measured
    if absent := [name for name in needed if name not in params]:
        raise PrunusError(f"params lack {', '.join(absent)}")
    make_method(method, params)


def _is_list(value: Any) -> bool:
    """Whether it is a list of whole numbers."""
    return type(value) is list and all(type(one) is int for one in value)
