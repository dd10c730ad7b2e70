"""What stands in decoder layers behind the first one only while a call needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunus.engine.hooks import before, changing, in_graphs, put_back, take_out

_NONE: frozenset[int] = frozenset()


@dataclass
class _Hooked:
    """A module, what runs before it, and the numbers of other hooks that run before that."""

    module: nn.Module
    function: Callable[..., Any]
    ahead: frozenset[int] = frozenset()


class Standby:
    """Hooks of decoder layers, and lent configurations through which attention is looked at.

    They are there when a block begins. A decode step takes those out that it has no use for, if no
    other thread is in a call that has; the next call that has puts them back before its layers run.
    A call of another thread that meets them on its way, without need, passes them unchanged.

    Where code of the model is compiled they stay: such code does not ask for them again.

    Args:
        owner: the engine.
    """

    def __init__(self, owner: object) -> None:
        self._owner = owner
        self._hooks: dict[int, _Hooked] = {}  # by decoder layer
        self._loans: list[tuple[Any, Any, Any]] = []
        #: By thread, what its call needs: hooks of these layers; None: all hooks and loans.
        self._needing: dict[int, frozenset[int] | None] = {}
        self._out: set[int] = set()
        self._lent, self._ended = True, False

    @property
    def stays(self) -> bool:
        """Whether nothing is ever taken out."""
        return in_graphs(self._owner)

    def hook(self, number: int, module: nn.Module, function: Callable[..., Any]) -> None:
        """``function`` runs before decoder layer ``number``, which is ``module``, as in
        :func:`~prunus.engine.hooks.before`."""
        self._hooks[number] = _Hooked(module, function)
        before(self._owner, module, function)

    def loan(self, module: Any, looks: Any, idle: Any) -> None:
        """``module`` has the configuration ``looks``, and ``idle`` while nobody needs that."""
        self._loans.append((module, looks, idle))
        module.config = looks

    def need(self) -> None:
        """This thread's call needs all of it, until :meth:`done`."""
        with changing:
            self._needing[threading.get_ident()] = None
            self._arrange(self._hooks.keys(), None)

    def spare(
        self,
        among: frozenset[int] | None = None,
        but: frozenset[int] = _NONE,
    ) -> None:
        """Of the layers ``among`` (None: all), this thread's call needs only the hooks of those in
        ``but``, until :meth:`done`."""
        if in_graphs(self._owner):
            self.need()
            return
        thread = threading.get_ident()
        layers = self._hooks.keys() if among is None else among
        if not but and thread not in self._needing and self._out.issuperset(layers):
            return
        with changing:
            before = self._needing.get(thread, _NONE)
            if before is None:
                return
            if but:
                self._needing[thread] = before | but
            every = list(self._needing.values())  # at once: other threads leave without waiting
            needs = [one for one in every if one is not None]
            everything = len(needs) < len(every)  # somebody needs it
            self._arrange(layers, None if everything else _NONE.union(*needs))

    def done(self) -> None:
        """This thread's call came to its end."""
        self._needing.pop(threading.get_ident(), None)

    def end(self) -> None:
        """Put nothing back any more."""
        with changing:
            self._ended = True

    def _arrange(self, among: Collection[int], needed: frozenset[int] | None) -> None:
        """Of the layers ``among``, let those hooks stand that are ``needed`` (None: all, and the
        loans), and no others."""
        if self._ended or (needed is None and self._lent and not self._out):
            return
        for number in among:
            own = self._hooks.get(number)
            if own is None:  # it never leaves
                continue
            if needed is None or number in needed:
                if number in self._out:
                    put_back(self._owner, own.module, own.function, own.ahead)
                    self._out.discard(number)
            elif number not in self._out:
                self._out.add(number)
                own.ahead = take_out(self._owner, own.module)
        if self._lent != (needed is None):
            self._lent = needed is None
            for module, looks, idle in self._loans:
                module.config = looks if self._lent else idle
