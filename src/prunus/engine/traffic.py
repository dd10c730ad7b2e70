"""Which threads are inside a model, so that pruning does not end under their feet."""

from __future__ import annotations

import threading

_PATIENCE = 60.0  # seconds


class Traffic:
    """Calls of one model that threads are inside of.

    Attributes:
        closing: pruning ends: calls that begin now are not pruned.
    """

    def __init__(self) -> None:
        self.closing = False
        self._inside: set[int] = set()
        self._changed = threading.Condition()

    def enter(self) -> bool:
        """Note that this thread is inside the model; False where it comes too late to be pruned."""
        with self._changed:
            if not self.closing:
                self._inside.add(threading.get_ident())
            return not self.closing

    def leave(self) -> None:
        """Note that this thread is outside again."""
        with self._changed:
            self._inside.discard(threading.get_ident())
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until no other thread that lives is inside the model, but not for ever."""
        self.closing = True
        own = threading.get_ident()

        def alone() -> bool:
            living = {thread.ident for thread in threading.enumerate()}
            return not (self._inside & living) - {own}

        with self._changed:
            self._changed.wait_for(alone, _PATIENCE)
