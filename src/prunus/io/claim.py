"""One writer at a time in a folder, or of one file: a second waits or is refused, so that files of
two runs never mix."""

from __future__ import annotations

import hashlib
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

_LOCKS = fcntl is not None
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
    if place in held or not _LOCKS:
        yield place
        return
    with _locking(place / _NAME, place, wait):
        held.add(place)
        try:
            yield place
        finally:
            held.discard(place)


@contextmanager
def claim_file(path: str | Path, wait: float = BRIEFLY) -> Iterator[Path]:
    """Hold the file ``path``, which need not be there, while the block reads it and writes it anew;
    its folder, which must be there, stays free for others.

    Raises:
        PrunusStateError: another process or thread holds it still after ``wait`` seconds.
        PrunusFileError: its folder cannot be written into.
    """
    place = Path(os.path.realpath(path))
    if not _LOCKS:
        yield place
        return
    # Not made of the file's name, which may be as long as names can be.
    name = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]
    with _locking(place.parent / f".prunus-{name}.lock", place, wait):
        yield place


@contextmanager
def _locking(path: Path, place: Path, wait: float) -> Iterator[None]:
    """Hold the lock at ``path``, which is that of ``place``."""
    handle = _lock(path, place, time.monotonic() + wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is let go: nobody else's goes
        os.close(handle)


def _lock(path: Path, place: Path, deadline: float) -> int:
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
