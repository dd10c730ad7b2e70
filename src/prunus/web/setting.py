"""What one side of the page is set to: a method with its budget and parameters, as typed."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from typing import get_type_hints

from prunus.errors import PrunusError, shown
from prunus.inference.named import NONE, Named, as_spelled, build_methods, parse
from prunus.inference.params import describe
from prunus.method import Method
from prunus.method.budget import Meaning


@dataclass(frozen=True)
class Setting:
    """A method as it is asked for.

    Attributes:
        method: as on the command line: ``clse``, ``clse@hybrid``, ``evoprune+clse``, ``none``.
        keep: text of ``--keep``, or None where the method says itself how many.
        params: texts of ``--param``.
        budget: what ``keep`` counts.
    """

    method: str
    keep: str | None = None
    params: tuple[str, ...] = ()
    budget: Meaning = "nominal"

    @classmethod
    def of(cls, method: str, percent: float = 0, params: str = "", exact: bool = False) -> Setting:
        """From the controls of the page. ``percent`` of the visual tokens count where the method
        takes a ``keep`` and ``params`` give none; 0 is the method's own. ``exact``: an average
        over all layers is meant.

        Raises:
            PrunusError: no method, or an unknown one; quotes that do not end.
        """
        name = method.strip()
        name = NONE if name.lower() == NONE else as_spelled(name)
        if not name:
            raise PrunusError("no method is chosen: choose one, or none for the unmodified model")
        try:
            given = tuple(shlex.split(params))
        except ValueError as error:
            raise PrunusError(f"the parameters {shown(params)}: a quote does not end") from error
        own = any(one.partition("=")[0] == "keep" for one in given)
        keep = None if own or not percent or not takes_keep(name) else share(percent)
        return cls(name, keep, given, "true" if exact else "nominal")

    def methods(self) -> tuple[Method, ...] | None:
        """The methods; None for the unmodified model.

        Raises:
            PrunusError: parameters that do not fit, or an average of a model that is not pruned.
        """
        found = build_methods(self.method, self.keep, self.params)
        if found is None and self.budget == "true":
            raise PrunusError("method none prunes nothing: it has no average to be exact about")
        return found

    @property
    def title(self) -> str:
        """In a few words."""
        words = [self.method, *([f"keep={self.keep}"] if self.keep else []), *self.params]
        return " ".join([*words, *(["exact average"] if self.budget == "true" else [])])


def share(percent: float) -> str:
    """Text of ``--keep`` for a share in percent; always with a point, so that 100 % is no count."""
    return repr(round(percent / 100, 6))


def takes_keep(method: str) -> bool:
    """Whether one number says how many tokens ``method`` keeps: not where its preset does, where
    there are several, or none.

    Raises:
        PrunusError: there is no such method.
    """
    named = [] if method.strip().lower() == NONE else parse(method)
    return len(named) == 1 and named[0].takes("keep")


def hint(method: str) -> str:
    """What can be typed as parameters: ``cutoff: float = 0.15, ...``.

    Raises:
        PrunusError: there is no such method.
    """
    named = [] if method.strip().lower() == NONE else parse(method)
    if not named:
        return "none"
    return "; ".join(
        ("" if len(named) == 1 else f"{one.kind.name}.") + line
        for one in named
        for line in _of(one)
    )


def _of(named: Named) -> list[str]:
    """A line for each parameter that the name leaves open."""
    hints = get_type_hints(named.kind)
    found = []
    for field in dataclasses.fields(named.kind):  # type: ignore[arg-type]
        if field.init and field.name != "keep" and field.name not in named.params:
            default = "" if field.default is dataclasses.MISSING else f" = {field.default}"
            found.append(f"{field.name}: {describe(hints[field.name])}{default}")
    return found
