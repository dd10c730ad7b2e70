"""Who wants to know when a method is choosing: the clock of prunus.bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

Around = Callable[[], AbstractContextManager[object]]

_around: ContextVar[Around] = ContextVar("around", default=nullcontext)


def choosing() -> AbstractContextManager[object]:
    """The block in which a method looks and chooses."""
    return _around.get()()


@contextmanager
def watched(around: Around) -> Iterator[None]:
    """Open the block that ``around`` gives wherever a method chooses in this thread."""
    before = _around.set(around)
    try:
        yield
    finally:
        _around.reset(before)
