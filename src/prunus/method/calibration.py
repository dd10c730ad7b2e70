"""Parameters of a method that were measured on a model, in a small JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError, shown
from prunus.io.files import write_text
from prunus.io.jsons import parse, read_bytes
from prunus.method.registry import find_method, make_method

_FIELDS = {"method": str, "model": str, "depth": int, "params": dict, "measured": dict}
_JSON = {str: "a text", int: "a whole number", dict: "an object"}


@dataclass(frozen=True)
class Calibration:
    """What was found for one method on one model.

    Attributes:
        method: name of the method.
        model: name or path of the model, for people; ``depth``: its decoder layers, which are
            checked.
        params: parameters of the method by name: numbers, or lists of whole ones.
        measured: what they follow from; any JSON.
    """

    method: str
    model: str
    depth: int
    params: Mapping[str, float | int | Sequence[int]]
    measured: Mapping[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file that :meth:`save` wrote.

        Raises:
            PrunusError: no such file, not one of these, or parameters that the method refuses; the
                message names the file.
        """
        facts = parse(read_bytes(path, "the calibration"), f"the calibration {str(path)!r}")
        if not isinstance(facts, dict) or set(facts) != set(_FIELDS):
            raise PrunusError(
                f"{str(path)!r} is no calibration: it must be an object with {', '.join(_FIELDS)} "
                "(make one with `prunus calibrate`)"
            )
        for name, kind in _FIELDS.items():
            if type(facts[name]) is not kind:
                raise PrunusError(f"the calibration {str(path)!r}: {name} must be {_JSON[kind]}")
        try:
            if facts["depth"] < 1:
                raise PrunusError(f"depth={shown(facts['depth'])}: a model has at least one layer")
            _check_params(facts["method"], facts["params"])
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

    def check(self, method: str, depth: int) -> None:
        """Raise PrunusError unless this is for ``method`` and a decoder of ``depth`` layers."""
        if self.method != method:
            raise PrunusError(f"this calibration is for {self.method}, not for {method}")
        if self.depth != depth:
            raise PrunusError(
                f"this calibration was made on {self.model} with {self.depth} decoder layers, the "
                f"model has {depth}: calibrate again"
            )


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
