"""One writer at a time in a folder: a second is refused, so that files of two runs never mix."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prunus.errors import PrunusFileError, PrunusStateError
from prunus.io.files import make_folder

try:
    import fcntl
except ImportError:  # Windows: there, two writers of one folder are not told apart
    fcntl = None  # type: ignore[assignment]

_NAME = ".prunus.lock"
#: Seconds that somebody who only writes a few files waits for somebody else who does.
BRIEFLY = 10.0

_own = threading.local()


@contextmanager
def claim(folder: str | Path, wait: float = 0.0) -> Iterator[Path]:
    """Hold ``folder``, which is made if it is missing, while the block runs.

    The same thread may claim a folder again. What a process held that was killed is free.

    Args:
        folder: the folder.
        wait: seconds to wait for another writer.

    Raises:
        PrunusStateError: another process or thread writes into it; says which process.
        PrunusFileError: it cannot be made or written into.
    """
    place = Path(os.path.realpath(make_folder(folder)))
    held: set[Path] = _own.__dict__.setdefault("held", set())
    if place in held or fcntl is None:
        yield place
        return
    handle = _lock(place, time.monotonic() + wait)
    held.add(place)
    try:
        yield place
    finally:
        held.discard(place)
        (place / _NAME).unlink(missing_ok=True)  # before it is let go: nobody else's goes
        os.close(handle)


def _lock(place: Path, deadline: float) -> int:
    path = place / _NAME
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise PrunusFileError(
                f"cannot write into {str(place)!r}: {error.strerror}: choose another folder"
            ) from error
        if _locked(handle) and _is_at(handle, path):
            _sign(handle)
            return handle
        os.close(handle)
        if time.monotonic() >= deadline:
            raise PrunusStateError(
                f"another run is writing into {str(place)!r}{_holder(path)}: wait for its end, or "
                "choose another folder"
            )
        time.sleep(0.05)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(handle: int) -> None:
    """Say whose the lock is."""
    with suppress(OSError):  # on a full disk it is held all the same
        os.ftruncate(handle, 0)  # whoever was killed with it left a number
        os.pwrite(handle, b"%d\n" % os.getpid(), 0)


def _holder(path: Path) -> str:
    """Who holds the lock, in words; nothing where that is not known."""
    try:
        number = path.read_bytes().strip()
    except OSError:  # let go in between
        return ""
    return f" (process {int(number)})" if number.isdigit() else ""


def _is_at(handle: int, path: Path) -> bool:
    """Whether the file that is locked is still the one that others find: whoever held it before may
    have removed it in between."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
