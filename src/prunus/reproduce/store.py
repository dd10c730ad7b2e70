"""What was measured, on disk: each number is measured once, whatever interrupts a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from prunus.compare.identity import digest
from prunus.errors import PrunusFileError
from prunus.io.files import make_folder, write_text
from prunus.io.forms import misfit
from prunus.io.jsons import parse, read_bytes

_WHAT = "measured by prunus reproduce"


class _Measured(TypedDict):
    values: dict[str, float]
    facts: dict[str, Any]


class Store:
    """The folder ``place``: a file for each measurement, named by the digest of all that it depends
    on. It is to be claimed while it is used.

    Attributes:
        told: files that cannot be used, a line each; what they were about is measured again.
    """

    def __init__(self, place: Path) -> None:
        self.place = make_folder(place)
        self.told: list[str] = []

    def read(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was measured for ``identity``, None if nothing was."""
        path = self._path(identity)
        if not os.path.lexists(path):
            return None
        try:
            found = parse(read_bytes(path, "a stored measurement"), str(path))
        except PrunusFileError as error:
            self.told.append(f"{error}: measured again")
            return None
        whole = isinstance(found, dict) and found.get("what") == _WHAT
        if not whole or found.get("check") != digest(found.get("measured")):
            self.told.append(f"{str(path)!r} is not whole: measured again")
            return None
        if (wrong := misfit(found["measured"], _Measured, "measured")) is not None:
            self.told.append(f"{str(path)!r} is damaged: {wrong}: measured again")
            return None
        measured: dict[str, Any] = found["measured"]
        return measured

    def write(self, identity: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
        """Store what was measured for ``identity``.

        Raises:
            PrunusFileError: it cannot be written.
        """
        whole = {
            "what": _WHAT,
            "of": identity,
            "check": digest(dict(measured)),
            "measured": dict(measured),
        }
        text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(self._path(identity), text + "\n")

    def _path(self, identity: Mapping[str, Any]) -> Path:
        return self.place / f"{digest(dict(identity))[:32]}.json"
