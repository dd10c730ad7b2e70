"""What ``--model_args`` of lmms-eval says: model, method and budget, videos, errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from prunus.errors import PrunusError, shown, unknown
from prunus.inference.named import NONE, build_methods, parse
from prunus.inference.params import field_names
from prunus.inference.sampling import Sampling
from prunus.method import Method
from prunus.method.budget import Meaning

#: What becomes of a question that is refused: it ends the run, or its answer says so.
ON_ERROR = ("stop", "record")

_BUDGETS = {"nominal": "nominal", "true": "true"}


@dataclass(frozen=True)
class Settings:
    """One setting of prunus, as texts and numbers.

    Attributes:
        pretrained: the model, as of :func:`prunus.load`.
        method, keep, params: as of :func:`~prunus.inference.named.build_methods`.
        budget: what ``keep`` counts.
        dtype, device, device_map, attn_implementation, revision: how and where the model is loaded.
        batch_size: questions at a time.
        max_new_tokens: longest answer where a task does not say it.
        system_prompt: said in front of every conversation that has no such text of its own.
        fps, frames, max_frames: which frames of a video are shown, see
            :class:`~prunus.inference.sampling.Sampling`.
        on_error: one of :data:`ON_ERROR`.
    """

    pretrained: str = ""
    method: str = NONE
    keep: str | None = None
    params: tuple[str, ...] = ()
    budget: str = "nominal"
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    attn_implementation: str | None = None
    revision: str | None = None
    batch_size: int = 1
    max_new_tokens: int = 1024
    system_prompt: str | None = None
    fps: float | None = None
    frames: int | None = None
    max_frames: int | None = None
    on_error: str = "stop"

    def __post_init__(self) -> None:
        if not self.pretrained:
            raise PrunusError(
                "no model: give pretrained=NAME (a built-in name, a folder or a Hugging Face id)"
            )
        if self.on_error not in ON_ERROR:
            raise unknown("on_error", self.on_error, ON_ERROR)
        if self.budget not in _BUDGETS:
            raise unknown("budget", self.budget, list(_BUDGETS))
        for name in ("batch_size", "max_new_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise PrunusError(f"{name}={shown(value)}: give a whole number from 1 on")

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Settings:
        """The settings that ``arguments`` of lmms-eval are, which has made numbers and truth values
        of them. What is no setting is a parameter of the method.

        Raises:
            PrunusError: an unknown name, or a value that makes no sense.
        """
        own = {one.name for one in dataclasses.fields(cls)} - {"params"}
        texts = {name: _text(value) for name, value in arguments.items() if value is not None}
        given = {name: text for name, text in texts.items() if name in own}
        method = given.get("method", NONE)
        params = {name: text for name, text in texts.items() if name not in own}
        _check_params(method, list(params), sorted(own))
        values: dict[str, Any] = dict(given)
        for name, number in (
            *((one, int) for one in ("batch_size", "max_new_tokens", "frames", "max_frames")),
            ("fps", float),
        ):
            if name in values:
                values[name] = _number(name, values[name], number)
        if "keep" in values:
            values["keep"] = values["keep"].replace("+", ",")  # a comma parts the arguments
        return cls(**values, params=tuple(f"{name}={text}" for name, text in params.items()))

    def methods(self) -> tuple[Method, ...] | None:
        """The methods; None for the unmodified model.

        Raises:
            PrunusError: as of :func:`~prunus.inference.named.build_methods`.
        """
        return build_methods(self.method, self.keep, self.params)

    @property
    def meaning(self) -> Meaning:
        """What ``keep`` counts."""
        return cast("Meaning", self.budget)

    @property
    def sampling(self) -> Sampling:
        """Which frames of a video are shown.

        Raises:
            PrunusError: they contradict each other.
        """
        return Sampling(fps=self.fps, frames=self.frames, most=self.max_frames)


def _text(value: Any) -> str:
    """What was typed: lmms-eval makes ``True`` of ``true``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise PrunusError(f"{name}={shown(text)} is no number") from None


def _check_params(method: str, given: list[str], own: list[str]) -> None:
    """Raise PrunusError for a name that is neither a setting nor a parameter of the method."""
    kinds = [] if method.strip().lower() == NONE else [one.kind for one in parse(method)]
    several = len(kinds) > 1
    known = [
        f"{kind.name}.{field}" if several else field
        for kind in kinds
        for field in field_names(kind)
        if field != "keep"
    ]
    for name in given:
        if name not in known:
            raise unknown("model argument", name, [*own, *known])
