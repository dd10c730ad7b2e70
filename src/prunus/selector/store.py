"""A trained selector on disk: safetensors and a card that names the model it fits."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from prunus.errors import PrunusError, PrunusFileError, brief, shown
from prunus.io.claim import BRIEFLY, claim
from prunus.io.files import replacing_all
from prunus.io.jsons import finite, parse, read_bytes
from prunus.method.fields import check_fields, fit
from prunus.method.question import QuestionMarks, marks_of
from prunus.method.view import Facts
from prunus.selector.config import SelectorConfig
from prunus.selector.selector import Selector

WEIGHTS, CARD = "selector.safetensors", "selector.json"
_OURS = "prunus"  # metadata of weights whose SHA-256 is in their card
_NEEDED = {"format", "selector", "model", "fingerprint", "marks"}
_WIDTHS = {"visual_width", "text_width"}
_FORMAT = 1
_TRIES = 20  # to read a selector that is being replaced, a hundredth of a second apart
_TOLERANCE = 0.01  # of a fingerprint: what rounding to half precision changes


@dataclass(frozen=True)
class Card:
    """What a selector's folder says of it.

    Attributes:
        model: name of the model that it was trained for.
        fingerprint: numbers of that model's weights.
        marks: where its chat template puts the question; None without a template.
        training: settings and final numbers.
        biases: STOP biases that were calibrated, by mean share of the tokens (as text).
    """

    model: str
    fingerprint: list[list[float]]
    marks: QuestionMarks | None
    training: dict[str, Any] = field(default_factory=dict)
    biases: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        rows = self.fingerprint
        if any(not isinstance(row, list) or len(row) != len(rows[0]) for row in rows):
            raise PrunusError("fingerprint must be a list of lists of equal length")
        for number in (number for row in rows for number in row):
            fit("fingerprint", number, float)
        for share, bias in self.biases.items():
            fit(f"biases[{share!r}]", bias, float)
            if not 0 < _number(share) <= 1:  # false for NaN
                raise PrunusError(f"biases has {shown(share)}: give shares of the tokens")

    @classmethod
    def of(cls, model_name: str, family: Facts, processor: Any) -> Card:
        """The card of a selector that is about to be trained."""
        return cls(model_name, family.fingerprint().tolist(), marks_of(processor))

    def bias_for(self, share: float) -> float:
        """The calibrated STOP bias for a mean of ``share`` of the tokens.

        Raises:
            PrunusError: none was calibrated; the message says how to.
        """
        for known, bias in self.biases.items():
            if abs(float(known) - share) < 5e-4:
                return bias
        have = ", ".join(self.biases) or "none"
        raise PrunusError(
            f"no STOP bias was calibrated for a mean of {share:.4g} of the tokens (there is "
            f"{have}): run `prunus calibrate stepwise --keep {share:.4g}`, or use mode='fixed'"
        )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def save_selector(folder: Path, selector: Selector, card: Card) -> None:
    """Write weights (float32 as they are) and card into ``folder``: both of them, or none.

    Raises:
        PrunusFileError: they cannot be written; what was there before is unchanged.
        PrunusStateError: another run writes into the folder.
    """
    weights = {name: value.detach().cpu() for name, value in selector.state_dict().items()}
    content = save(weights, {_OURS: "1"})
    described = {
        "format": _FORMAT,
        "weights": sha256(content).hexdigest(),
        "selector": selector.config.as_dict(),
        **finite(asdict(card)),
        "marks": None if card.marks is None else asdict(card.marks),
    }
    text = json.dumps(described, indent=1, allow_nan=False)
    with (
        claim(folder, BRIEFLY) as place,
        replacing_all([place / WEIGHTS, place / CARD]) as [new_weights, new_card],
    ):
        new_weights.write_bytes(content)
        new_card.write_text(text, encoding="utf-8")


def load_selector(folder: str | Path, model: Facts) -> tuple[Selector, Card]:
    """The selector in ``folder`` for ``model``, in evaluation mode, float32 on the CPU.

    Raises:
        PrunusError: no selector there, an unreadable one, or one for another model.
    """
    place = Path(os.path.expanduser(folder))
    # Not Path's own ways: they raise for names that no file can have.
    if not os.path.isfile(place / CARD) or not os.path.isfile(place / WEIGHTS):
        raise PrunusFileError(
            f"no selector in {shown(str(folder))} ({CARD} and {WEIGHTS} are missing): train one "
            "with `prunus train stepwise`"
        )
    for _ in range(_TRIES):
        found = _read(place)
        if why := _unfit(found, model):
            raise PrunusError(
                f"the selector in {str(folder)!r} was trained for {found.card.model}: {why}"
            )
        try:
            return _load(place, found), found.card
        except _Apart as error:  # somebody may be replacing them just now
            apart = error
            time.sleep(0.01)
    raise apart


def check_selector(folder: Path) -> None:
    """Raise PrunusError unless card and weights in ``folder`` are those of one selector, for
    whichever model."""
    _load(folder, _read(folder))


def shipped() -> list[str]:
    """Names of the selectors that ship with prunus; the same name may be there for more than one
    model."""
    with as_file(files("prunus.selector").joinpath("weights")) as folder:
        return sorted({place.name for place in _places(folder)})


def find_selector(name: str, model: Facts) -> tuple[Selector, Card]:
    """The selector called ``name`` that ships with prunus and fits ``model``.

    Raises:
        PrunusError: none does.
    """
    models = []
    with as_file(files("prunus.selector").joinpath("weights")) as folder:
        for place in _places(folder):
            found = _read(place)
            if place.name != name:
                continue
            if not _unfit(found, model):
                return _load(place, found), found.card
            models.append(found.card.model)
    raise PrunusError(
        f"no selector {name!r} for this model ships with prunus (there is one for "
        f"{', '.join(models) or 'no model'}): train one with `prunus train stepwise --model ...` "
        "(one-shot: with --control one-shot) and pass its folder as selector= (--param selector=)"
    )


def _places(folder: Path) -> Iterator[Path]:
    """Folders of selectors: one per model, and in it one per name."""
    if folder.is_dir():
        yield from sorted(card.parent for card in folder.glob(f"*/*/{CARD}"))


class _Apart(PrunusFileError):
    """Weights and card that were not saved together."""


@dataclass(frozen=True)
class _Found:
    """A card as it was read; ``weights``: SHA-256 of the file that belongs to it, None in those
    that were written before there was one."""

    config: SelectorConfig
    card: Card
    weights: str | None


def _read(place: Path) -> _Found:
    path = place / CARD
    try:
        return _understood(parse(read_bytes(path, "the card"), CARD))
    except PrunusError as error:
        raise PrunusFileError(f"{str(path)!r} is no selector's card: {error}") from error


def _understood(raw: Any) -> _Found:
    """What a card says, once all of it is what it has to be: before anything is built from it."""
    if not isinstance(raw, dict):
        raise PrunusError("it must be an object")
    if type(raw.get("format")) is not int or raw["format"] != _FORMAT:
        raise PrunusError(f"format is not {_FORMAT}")
    entries = {one.name for one in fields(Card)} | {"format", "selector", "marks", "weights"}
    if unknown := sorted(set(raw) - entries):
        raise PrunusError(f"nothing is known of {', '.join(map(shown, unknown))}")
    if absent := sorted(_NEEDED - set(raw)):
        raise PrunusError(f"it lacks {', '.join(absent)}")
    weights = raw.get("weights")
    if weights is not None and not isinstance(weights, str):
        raise PrunusError("weights must be a text")
    given = {one.name: raw[one.name] for one in fields(Card) if one.name in raw}
    card = Card(**{**given, "marks": _marks(raw.get("marks"))})
    return _Found(_config(raw["selector"]), card, weights)


def _config(raw: Any) -> SelectorConfig:
    known = {one.name for one in fields(SelectorConfig)}
    if not isinstance(raw, dict) or not set(raw) <= known or not set(raw) >= _WIDTHS:
        raise PrunusError(
            f"selector must be an object with {', '.join(sorted(_WIDTHS))}, and of "
            f"{', '.join(sorted(known - _WIDTHS))} what is not as usual"
        )
    return SelectorConfig(**raw)


def _marks(raw: Any) -> QuestionMarks | None:
    if raw is None:
        return None
    names = {one.name for one in fields(QuestionMarks)}
    if not isinstance(raw, dict) or set(raw) != names:
        raise PrunusError(f"marks must be null or an object with {', '.join(sorted(names))}")
    return QuestionMarks(**raw)


def _load(place: Path, found: _Found) -> Selector:
    path = place / WEIGHTS
    with torch.device("meta"):  # takes no memory, whatever the card asks for
        wanted = {name: one.shape for name, one in Selector(found.config).state_dict().items()}
    try:
        content = path.read_bytes()
        weights: dict[str, Tensor] = load(content)
        if _is_ours(content) and sha256(content).hexdigest() != found.weights:
            raise _Apart(
                f"{str(path)!r} cannot be read: it was not saved together with {CARD} (one of them "
                "was copied by itself, or saving was cut off)"
            )
        if {name: value.shape for name, value in weights.items()} != wanted:
            raise PrunusFileError(f"its weights are not those of the selector in {CARD}")
        selector = Selector(found.config)
        selector.load_state_dict({name: value.float() for name, value in weights.items()})
    except _Apart:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        raise PrunusFileError(f"{str(path)!r} cannot be read: {brief(error)}") from error
    if broken := [name for name, value in weights.items() if not bool(value.isfinite().all())]:
        raise PrunusFileError(f"{str(path)!r} cannot be used: NaN or infinity in {broken[0]}")
    return selector.eval().requires_grad_(False)


def _is_ours(content: bytes) -> bool:
    """Whether weights are as :func:`save_selector` wrote them: other tools leave out its mark."""
    size = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    return _OURS in header.get("__metadata__", {})


def _unfit(found: _Found, model: Facts) -> str:
    """Why a selector does not fit ``model``; "" if it does."""
    config, ours = found.config, (model.feature_width, model.text_width)
    if ours != (config.visual_width, config.text_width):
        return (
            f"it reads features of width {config.visual_width} and words of {config.text_width}, "
            f"this model has {ours[0]} and {ours[1]}"
        )
    here = model.fingerprint()
    there = torch.tensor(found.card.fingerprint, dtype=torch.float32)
    if here.shape == there.shape:
        scale = there.abs().amax(1, keepdim=True)
        if bool(((here - there).abs() <= _TOLERANCE * scale).all()):  # false for NaN
            return ""
    return "this model has other weights (of the same shape)"
