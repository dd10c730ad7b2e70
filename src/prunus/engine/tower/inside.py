"""What a method sees inside a block of the vision tower."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from torch import Tensor

from prunus.engine.tower.seen import Name, keys_name
from prunus.errors import PrunusError
from prunus.families.towers.base import Tower
from prunus.method.signals import Block, Of, Passed, Turns
from prunus.method.words import Words


class Running(Protocol):
    """What is asked of the call of the tower (:class:`~prunus.engine.tower.passing.TowerPass`)."""

    tower: Tower

    def mean(self, values: Tensor, number: int) -> Tensor:
        """Over the patches of each token of a group."""

    def take(self, block: int, name: Name, number: int) -> Tensor:
        """What ``name`` means, of the tokens of a group."""


class Inside:
    """Signals inside a block (:class:`prunus.method.signals.Source`), for one group of frames."""

    macs = 0.0

    def __init__(self, run: Running, number: int, block: int, states: Tensor) -> None:
        self._run, self._number, self._block, self._states = run, number, block, states

    def layer(self, number: int | None) -> Any:
        """Only the states at this place."""
        if number is not None:
            raise PrunusError("inside the vision tower there is no decoder layer to look at")
        return self

    @property
    def states(self) -> Tensor:
        """``[G, T, D]`` behind the attention's residual sum."""
        states = self._states.detach().flatten(0, -2)
        return self._run.mean(states, self._number)

    def pick(self, values: Tensor, of: str = "visual") -> Tensor:
        """They are those of the tokens already."""
        if of != "visual":
            raise PrunusError("inside the vision tower there is no text")
        return values

    def block(self, number: Block) -> Any:
        """Only this one."""
        if number is not None and self._run.tower.number(number) != self._block:
            raise PrunusError(f"at block {self._block} of the tower, only that block can be seen")
        return self

    def attention(self, rows: Literal["summary", "all", "joined"]) -> Tensor:
        """See :class:`~prunus.method.signals.Tower`."""
        return self._run.take(self._block, rows, self._number)

    def keys(self, rotary: bool, joined: bool) -> Tensor:
        """See :class:`~prunus.method.signals.Tower`."""
        name = keys_name(rotary, joined)
        return self._run.take(self._block, name, self._number)

    def features(self) -> Tensor:
        """There are none yet."""
        raise PrunusError("inside the vision tower there are no features yet")

    def summary(self) -> Tensor | None:
        """There is none yet."""
        raise PrunusError("inside the vision tower there is no CLS feature yet")

    def ahead(self) -> Passed:
        """There is no language model yet."""
        raise PrunusError("inside the vision tower there is no language model")

    def words(self) -> Words:
        """There are none yet."""
        raise PrunusError("inside the vision tower there is no text")

    def normed(self, states: Tensor) -> Tensor:
        """There is no language model yet."""
        raise PrunusError("inside the vision tower there is no language model")

    def text(self, question: bool) -> Tensor:
        """There is no text yet."""
        raise PrunusError("inside the vision tower there is no text")

    def prompt(self) -> Tensor:
        """There is no prompt yet."""
        raise PrunusError("inside the vision tower there is no prompt")

    def turns(self, layer: int, of: Of) -> Turns:
        """There is no language model yet."""
        raise PrunusError("inside the vision tower there is no language model")
