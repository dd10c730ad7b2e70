"""What prunus refuses: one family of exceptions, so that refusals are told from bugs by class."""

from __future__ import annotations


class PrunusError(ValueError):
    """Something that was asked for cannot be done; the message says what to do instead.

    Everything that prunus raises on purpose is one of these. The subclasses are also what Python
    programs expect for their kind of mistake.
    """


class PrunusTypeError(PrunusError, TypeError):
    """An argument of a wrong type."""


class PrunusStateError(PrunusError, RuntimeError):
    """Something that cannot be done now: a model that is pruned already, a cache without its run,
    a report of nothing."""


class PrunusFileError(PrunusError, OSError):
    """A file that cannot be read or written."""
