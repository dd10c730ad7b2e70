"""What stands in decoder layers behind the first one only while a call needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunus.engine.hooks import before, changing, in_graphs, put_back, take_out


@dataclass
class _Hooked:
    """A module, what runs before it, and the numbers of other hooks that run before that."""

    module: nn.Module
    function: Callable[..., Any]
    ahead: frozenset[int] = frozenset()


class Standby:
    """Hooks of decoder layers, and lent configurations through which attention is looked at.

    They are there when a block begins. A decode step that has no use for them takes them out, if no
    other thread is in a call that has; the next call that has puts them back before its layers run.
    A call of another thread that meets them on its way, without need, passes them unchanged.

    Where code of the model is compiled they stay: such code does not ask for them again.

    Args:
        owner: the engine.
    """

    def __init__(self, owner: object) -> None:
        self._owner = owner
        self._hooks: list[_Hooked] = []
        self._loans: list[tuple[Any, Any, Any]] = []
        self._needing: set[int] = set()  # threads
        self._there, self._ended = True, False

    def hook(self, module: nn.Module, function: Callable[..., Any]) -> None:
        """``function`` runs before ``module``, as in :func:`~prunus.engine.hooks.before`."""
        self._hooks.append(_Hooked(module, function))
        before(self._owner, module, function)

    def loan(self, module: Any, looks: Any, idle: Any) -> None:
        """``module`` has the configuration ``looks``, and ``idle`` while nobody needs that."""
        self._loans.append((module, looks, idle))
        module.config = looks

    def need(self) -> None:
        """This thread's call needs all of it, until :meth:`done`."""
        with changing:
            self._needing.add(threading.get_ident())
            if self._there or self._ended:
                return
            for own in self._hooks:
                put_back(self._owner, own.module, own.function, own.ahead)
            for module, looks, _ in self._loans:
                module.config = looks
            self._there = True

    def spare(self) -> None:
        """This thread's call has no use for any of it."""
        if in_graphs(self._owner):
            self.need()
            return
        self._needing.discard(threading.get_ident())
        if not self._there:
            return
        with changing:
            if self._needing or self._ended:
                return
            self._there = False
            for own in self._hooks:
                own.ahead = take_out(self._owner, own.module)
            for module, _, idle in self._loans:
                module.config = idle

    def done(self) -> None:
        """This thread's call came to its end."""
        self._needing.discard(threading.get_ident())

    def end(self) -> None:
        """Put nothing back any more."""
        with changing:
            self._ended = True
