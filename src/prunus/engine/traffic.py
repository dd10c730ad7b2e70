"""Which threads are inside a model in calls that are pruned: these end as they began."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import CodeType, FrameType
from typing import Any

from torch import nn

_PATIENCE = 60.0  # seconds
_LOOK = 0.05  # seconds between looks at where threads are


class _Own(threading.local):
    """Modules around the multimodal one whose calls began in this thread, by id."""

    def __init__(self) -> None:
        self.calls: set[int] = set()


class Traffic:
    """Calls of one model that are pruned and that threads are inside of.

    Only a call whose beginning was seen is pruned. A thread may have been on its way when the hooks
    came, or come when pruning ends already: nothing is done for its call, in any module, so that
    hooks may come and go under its feet.

    Args:
        modules: of which a call makes a prompt; inside one that was not seen, nothing is pruned.
        towers: what such a call runs first, and others may run by itself.

    Attributes:
        closing: pruning ends: calls that begin now are not pruned.
    """

    def __init__(self, modules: Sequence[nn.Module] = (), towers: Sequence[nn.Module] = ()) -> None:
        self.closing = False
        self._modules, self._towers = tuple(modules), tuple(towers)
        self._own = _Own()
        self._inside: set[int] = set()
        self._visits: set[int] = set()  # of these, those in the vision tower by itself
        self._ending: set[int] = set()  # threads that called close(): of these, hooks may be gone
        self._changed = threading.Condition()

    def called(self, module: nn.Module) -> None:
        """Note that a call of ``module`` begins in this thread."""
        self._own.calls.add(id(module))

    def returned(self, module: nn.Module) -> None:
        """Note that it ended."""
        self._own.calls.discard(id(module))

    def begins(self, module: nn.Module) -> bool:
        """Whether a call of ``module`` is no part of one whose beginning was not seen."""
        if self._own.calls:
            return True
        return not is_inside([one for one in self._modules if one is not module])

    def enter(self) -> bool:
        """Note that this thread is inside the model; False where it comes too late to be pruned."""
        own = threading.get_ident()
        with self._changed:
            self._visits.discard(own)
            if self.closing:
                self._inside.discard(own)
                self._changed.notify_all()
            else:
                self._inside.add(own)
            return not self.closing

    def leave(self) -> None:
        """Note that this thread is outside again."""
        with self._changed:
            self._visits.discard(threading.get_ident())
            self._inside.discard(threading.get_ident())
            self._changed.notify_all()

    def visit(self) -> bool:
        """The tower is called: whether in a call that is pruned. By itself, too, it is one, until
        :meth:`end_visit` or until nothing of the model runs any more in this thread."""
        own = threading.get_ident()
        if own in self._inside and own not in self._visits:
            return True
        if is_inside(self._modules):
            return False
        with self._changed:
            if self.enter():
                self._visits.add(own)
            return own in self._visits

    def admits(self) -> bool:
        """Whether this thread is in a call that is pruned, or in none of the model at all."""
        return threading.get_ident() in self._inside or not is_inside(self._modules)

    def end_visit(self) -> None:
        """A call of the tower by itself came to its end, behind the projector."""
        if threading.get_ident() in self._visits:
            self.leave()

    def close(self) -> None:
        """Wait until no other thread that lives is inside the model, but not for ever, and for none
        that came here itself, from inside."""
        self.closing = True
        own, until = threading.get_ident(), time.monotonic() + _PATIENCE

        def alone() -> bool:
            living = {thread.ident for thread in threading.enumerate()}
            return not (self._inside & living) - self._ending - self._gone()

        with self._changed:
            self._ending.add(own)
            self._changed.notify_all()
            while not alone() and time.monotonic() < until:
                self._changed.wait(_LOOK)

    def _gone(self) -> set[int]:
        """Threads that called the tower by itself and are somewhere else by now: it raised, or
        nothing was projected."""
        if not self._visits:
            return set()
        frames, parts = sys._current_frames(), (*self._modules, *self._towers)
        return {
            thread
            for thread in self._visits
            if not any(own is one for own in _selves(frames.get(thread)) for one in parts)
        }


_CALLED = nn.Module._wrapped_call_impl.__code__
_RUN = nn.Module._call_impl.__code__


def is_inside(modules: Sequence[nn.Module], running: bool = False) -> bool:
    """Whether this thread is inside a call of one of ``modules``, compiled or not; with
    ``running`` only of one that runs as plain Python and would have asked for hooks."""
    if not modules:
        return False
    for module in _selves(sys._getframe(1), _RUN if running else _CALLED):
        if any(one is module or one is getattr(module, "_orig_mod", None) for one in modules):
            return True
    return False


def _selves(frame: FrameType | None, code: CodeType | None = None) -> Iterator[Any]:
    """``self`` of every function that runs in ``frame`` or called it, or of those with ``code``."""
    while frame is not None:
        if code is None or frame.f_code is code:
            yield frame.f_locals.get("self")
        frame = frame.f_back
