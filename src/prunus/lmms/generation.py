"""From a task's ``generation_kwargs`` to arguments of ``generate``, and where an answer stops."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prunus.errors import PrunusError, shown

#: Numbers of sampling and beams that are passed on as they are.
_NUMBERS = ("min_new_tokens", "repetition_penalty", "length_penalty")
#: What is about other models, or about steps that are not taken here.
_OF_OTHERS = ("image_aspect_ratio", "max_agentic_steps", "num_samples", "visual_cot")
_KNOWN = ("max_new_tokens", "until", "do_sample", "num_beams")
_SAMPLING = {"temperature": float, "top_p": float, "top_k": int}


@dataclass(frozen=True)
class Generation:
    """How an answer is generated: ``options`` of ``generate``, and the texts at the first of which
    an answer is cut off, ``stops``."""

    options: Mapping[str, Any] = field(default_factory=dict)
    stops: Sequence[str] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any], most: int) -> Generation:
        """What ``given``, a task's own words, asks for; ``most``: new tokens where it says none.

        A temperature of 0, or none, is greedy, and so is ``do_sample: false``. What is known to be
        about other models is left out, anything else that is unknown with a warning.

        Raises:
            PrunusError: a text to stop at that is no text.
        """
        sampled = float(given.get("temperature") or 0) > 0 and given.get("do_sample") is not False
        options: dict[str, Any] = {
            "max_new_tokens": int(given.get("max_new_tokens") or most),
            "num_beams": int(given.get("num_beams") or 1),
            "do_sample": sampled,
        }
        if sampled:
            for name, number in _SAMPLING.items():
                if given.get(name) is not None:
                    options[name] = number(given[name])
        options |= {name: given[name] for name in _NUMBERS if given.get(name) is not None}
        for name in given:
            if name not in (*_KNOWN, *_NUMBERS, *_SAMPLING, *_OF_OTHERS):
                warnings.warn(
                    f"prunus: the task's generation setting {name!r} is unknown, and left out",
                    stacklevel=2,
                )
        until = given.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        if any(not isinstance(stop, str) for stop in stops):
            raise PrunusError(f"until={shown(until)}: give texts at which an answer ends")
        return cls(options, tuple(stop for stop in stops if stop))

    def cut(self, text: str) -> str:
        """``text`` up to the first of the stops."""
        for stop in self.stops:
            text = text.partition(stop)[0]
        return text.strip()

    @property
    def key(self) -> str:
        """Equal for requests that may be generated together."""
        return repr((sorted(self.options.items()), list(self.stops)))
