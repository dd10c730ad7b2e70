"""A trained selector on disk: safetensors and a card that names the model it fits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from prunus.stepwise.config import SelectorConfig
from prunus.stepwise.question import QuestionMarks, marks_of
from prunus.stepwise.selector import Selector
from prunus.view import Facts

WEIGHTS, CARD = "selector.safetensors", "selector.json"
_FORMAT = 1
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

    @classmethod
    def of(cls, model_name: str, family: Facts, processor: Any) -> Card:
        """The card of a selector that is about to be trained."""
        return cls(model_name, family.fingerprint().tolist(), marks_of(processor))

    def bias_for(self, share: float) -> float:
        """The calibrated STOP bias for a mean of ``share`` of the tokens.

        Raises:
            ValueError: none was calibrated; the message says how to.
        """
        for known, bias in self.biases.items():
            if abs(float(known) - share) < 5e-4:
                return bias
        have = ", ".join(self.biases) or "none"
        raise ValueError(
            f"no STOP bias was calibrated for a mean of {share:.4g} of the tokens (there is "
            f"{have}): run `prunus calibrate stepwise --keep {share:.4g}`, or use mode='fixed'"
        )


def save_selector(folder: Path, selector: Selector, card: Card) -> None:
    """Write weights (float32 as they are) and card into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu() for name, value in selector.state_dict().items()}
    _write(folder / WEIGHTS, lambda path: save_file(weights, path))
    described = {
        "format": _FORMAT,
        "selector": selector.config.as_dict(),
        **asdict(card),
        "marks": None if card.marks is None else asdict(card.marks),
    }
    text = json.dumps(described, indent=1)
    _write(folder / CARD, lambda path: path.write_text(text, encoding="utf-8"))


def load_selector(folder: str | Path, model: Facts) -> tuple[Selector, Card]:
    """The selector in ``folder`` for ``model``, in evaluation mode, float32 on the CPU.

    Raises:
        ValueError: no selector there, an unreadable one, or one for another model.
    """
    place = Path(folder).expanduser()
    if not (place / CARD).is_file() or not (place / WEIGHTS).is_file():
        raise ValueError(
            f"no selector in {str(folder)!r} ({CARD} and {WEIGHTS} are missing): train one with "
            "`prunus train stepwise`"
        )
    config, card = _read(place)
    if why := _unfit(config, card, model):
        raise ValueError(f"the selector in {str(folder)!r} was trained for {card.model}: {why}")
    return _load(place, config), card


def shipped() -> list[str]:
    """Names of the selectors that ship with prunus; the same name may be there for more than one
    model."""
    with as_file(files("prunus.stepwise").joinpath("weights")) as folder:
        return sorted({place.name for place in _places(folder)})


def find_selector(name: str, model: Facts) -> tuple[Selector, Card]:
    """The selector called ``name`` that ships with prunus and fits ``model``.

    Raises:
        ValueError: none does.
    """
    models = []
    with as_file(files("prunus.stepwise").joinpath("weights")) as folder:
        for place in _places(folder):
            config, card = _read(place)
            if place.name != name:
                continue
            if not _unfit(config, card, model):
                return _load(place, config), card
            models.append(card.model)
    raise ValueError(
        f"no selector {name!r} for this model ships with prunus (there is one for "
        f"{', '.join(models) or 'no model'}): train one with `prunus train stepwise --model ...` "
        "and pass its folder as selector="
    )


def _places(folder: Path) -> Iterator[Path]:
    """Folders of selectors: one per model, and in it one per name."""
    if folder.is_dir():
        yield from sorted(card.parent for card in folder.glob(f"*/*/{CARD}"))


def _read(place: Path) -> tuple[SelectorConfig, Card]:
    try:
        raw = json.loads((place / CARD).read_text(encoding="utf-8"))
        if raw.pop("format") != _FORMAT:
            raise ValueError(f"format is not {_FORMAT}")
        config = SelectorConfig(**raw.pop("selector"))
        marks = raw.pop("marks")
        torch.tensor(raw["fingerprint"], dtype=torch.float32)  # raises, if it is none
        return config, Card(marks=None if marks is None else _marks(marks), **raw)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(place / CARD)!r} is no selector's card: {error}") from error


def _load(place: Path, config: SelectorConfig) -> Selector:
    selector = Selector(config)
    try:
        weights: dict[str, Tensor] = load_file(place / WEIGHTS)
        selector.load_state_dict({name: value.float() for name, value in weights.items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{str(place / WEIGHTS)!r} cannot be read: {error}") from error
    return selector.eval().requires_grad_(False)


def _marks(raw: dict[str, Sequence[int]]) -> QuestionMarks:
    return QuestionMarks(**{name: tuple(values) for name, values in raw.items()})


def _unfit(config: SelectorConfig, card: Card, model: Facts) -> str:
    """Why a selector does not fit ``model``; "" if it does."""
    ours = (model.feature_width, model.text_width)
    if ours != (config.visual_width, config.text_width):
        return (
            f"it reads features of width {config.visual_width} and words of {config.text_width}, "
            f"this model has {ours[0]} and {ours[1]}"
        )
    here = model.fingerprint()
    there = torch.tensor(card.fingerprint, dtype=torch.float32)
    if here.shape == there.shape:
        scale = there.abs().amax(1, keepdim=True)
        if not bool(((here - there).abs() > _TOLERANCE * scale).any()):
            return ""
    return "this model has other weights (of the same shape)"


def _write(path: Path, write: Any) -> None:
    """Write beside ``path`` and move it there in one step."""
    partial = path.with_name(f"{path.name}.partial")
    write(partial)
    partial.replace(path)
