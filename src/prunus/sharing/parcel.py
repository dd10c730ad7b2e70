"""What is shared: files of a selector or of a calibration, without paths of this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from prunus.errors import PrunusFileError, shown
from prunus.io.jsons import parse, read_bytes
from prunus.method.calibration import Calibration
from prunus.selector.store import CARD, WEIGHTS, check_selector

CALIBRATION = "calibration.json"
README = "README.md"


@dataclass(frozen=True)
class Parcel:
    """Files that go together.

    Attributes:
        kind: "selector" or "calibration".
        facts: what its JSON file says, with the last part of a path in the place of each path.
        files: their contents by name, without the page.
    """

    kind: Literal["selector", "calibration"]
    facts: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def fingerprint(self) -> str:
        """A short name of the weights of the model that it is for."""
        rows = (
            self.facts["fingerprint"]
            if self.kind == "selector"
            else (self.facts.get("made_on") or {}).get("weights")
        )
        if not rows:
            return ""
        text = json.dumps([[f"{number:.3g}" for number in row] for row in rows])
        return sha256(text.encode()).hexdigest()[:12]


def pack(path: str | Path) -> Parcel:
    """What is in a selector's folder, or in a calibration's file.

    Raises:
        PrunusFileError: neither is there, or it cannot be read.
        PrunusError: it is there, and is not what it has to be.
    """
    place = Path(os.path.expanduser(path))
    if os.path.isfile(place):
        Calibration.load(place)  # refuses what is none
        facts = _nameless(parse(read_bytes(place, "the calibration"), place.name))
        return Parcel("calibration", facts, {CALIBRATION: _json(facts)})
    if not (os.path.isfile(place / CARD) and os.path.isfile(place / WEIGHTS)):
        raise PrunusFileError(
            f"nothing to share in {shown(str(path))}: give the folder of a selector ({CARD} and "
            f"{WEIGHTS}; `prunus train stepwise` makes one), or the file of a calibration "
            "(`prunus calibrate` makes one)"
        )
    check_selector(place)
    facts = _nameless(parse(read_bytes(place / CARD, "the card"), CARD))
    weights = read_bytes(place / WEIGHTS, "the weights")
    return Parcel("selector", facts, {CARD: _json(facts), WEIGHTS: weights})


def _json(facts: Any) -> bytes:
    return (json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _nameless(value: Any) -> Any:
    """``value`` with the last part of a path in the place of each path: where files lay is nobody's
    business. Names on the hub (``org/model``) stay."""
    if isinstance(value, dict):
        return {key: _nameless(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_nameless(one) for one in value]
    return last_part(value) if isinstance(value, str) else value


def last_part(text: str) -> str:
    """The last part of ``text`` if it is a path of this machine, else ``text``."""
    if text.startswith(("/", "~", "./", "../")):
        return PurePosixPath(text).name
    if PureWindowsPath(text).is_absolute():
        return PureWindowsPath(text).name
    return text
