"""Writing files so that there is always a whole one: beside the target, and moved in one step.

Whatever happens while something is written (a full disk, Ctrl-C, an error in between), the file
that was there before stays as it was, and nothing half-written is left behind.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prunus.errors import PrunusFileError

#: Temporary files are called ``.prunus-*`` with this ending.
_ENDING = ".partial"


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, with line ends as they are.

    Raises:
        PrunusFileError: it cannot be written; what was there before is unchanged.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes, what: str = "") -> None:
    """Write ``content``, which a message calls ``what``; errors as of :func:`write_text`."""
    with replacing_all([path], what) as [partial]:
        partial.write_bytes(content)


def check_place(path: str | Path, what: str = "") -> None:
    """Find out, before work is begun, that ``path`` can be written; nothing is made.

    Raises:
        PrunusFileError: it is a folder, lies in what is none, or nothing may be written there.
    """
    with _explained([path], what):
        target = _resolved(Path(path))
        if target.is_dir():
            raise IsADirectoryError("it is a folder: give the name of a file")
        around = next(folder for folder in target.parents if os.path.lexists(folder))
        if not around.is_dir():
            raise NotADirectoryError(f"{str(around)!r} is no folder")
        if not _special(target) and not os.access(around, os.W_OK | os.X_OK):
            raise PermissionError(f"nothing may be written in {str(around)!r}")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A place to write what is to become ``path``: it is moved there when the block ends, and
    removed if the block raises anything. Folders on the way are made.

    Raises:
        PrunusFileError: it cannot be written (any OSError of the block, too).
    """
    with replacing_all([path]) as [partial]:
        yield partial


@contextmanager
def replacing_all(paths: Sequence[str | Path], what: str = "") -> Iterator[list[Path]]:
    """Like :func:`replacing` for several files that belong together: all of them are replaced, or
    none. ``what`` is what a message calls them."""
    targets = [_resolved(Path(path)) for path in paths]
    partials = [_beside(target) for target in targets]
    try:
        with _explained(paths, what):
            for target in targets:
                _make_room(target)
            yield partials
            for partial, target in zip(partials, targets, strict=True):
                _finish(partial, target)
            _move(partials, targets)
    finally:
        for partial in partials:
            _remove(partial)


def append_line(path: str | Path, line: str) -> None:
    """Add ``line`` to a file of lines; if that fails, the file is as long as it was. A last line
    without its end, which an editor or a process that died left, is ended before.

    Raises:
        PrunusFileError: it cannot be written.
    """
    with _explained([path]), Path(path).open("ab+", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        if before:
            file.seek(before - 1)
        begun = before > 0 and file.read(1) != b"\n"
        rest = memoryview(("\n" * begun + f"{line}\n").encode())
        try:
            while rest:  # an unbuffered write may stop where the disk is full
                rest = rest[file.write(rest) :]
        except BaseException:
            file.truncate(before)
            raise


def make_folder(path: str | Path) -> Path:
    """The folder ``path``, made with its parents if it is missing.

    Raises:
        PrunusFileError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failure(f"the folder {str(path)!r} cannot be made", error) from error
    return Path(path)


def replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder, and put it in the place of ``path`` with all that is in it.

    Raises:
        PrunusFileError: it cannot be written; what was there before is unchanged.
    """
    target = Path(os.path.realpath(path))
    fresh, old = _beside(target), _beside(target)
    try:
        with _explained([path]):
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh.mkdir()
            write(fresh)
            for file in fresh.rglob("*"):
                if file.is_file():
                    _sync(file)
            try:
                if target.exists():
                    target.rename(old)
                fresh.rename(target)
            except BaseException:
                if old.exists() and not target.exists():
                    old.rename(target)
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def _resolved(path: Path) -> Path:
    """Where a link leads: the link itself stays. Devices are left alone."""
    return path if _special(path) else Path(os.path.realpath(path))


def _special(path: Path) -> bool:
    """Whether ``path`` is a device or a pipe, such as /dev/stdout: nothing can be moved there."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _beside(target: Path) -> Path:
    # Not made of the target's name, which may be as long as names can be.
    folder = Path(tempfile.gettempdir()) if _special(target) else target.parent
    return folder / f".prunus-{secrets.token_hex(8)}{_ENDING}"


def _make_room(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError("it is a folder: give the name of a file")
    target.parent.mkdir(parents=True, exist_ok=True)


def _finish(partial: Path, target: Path) -> None:
    """Make sure that ``partial`` is on the disk, with the permissions that the target has."""
    if target.is_file():
        partial.chmod(stat.S_IMODE(target.stat().st_mode))
    _sync(partial)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _move(partials: Sequence[Path], targets: Sequence[Path]) -> None:
    """Move all files to their places; if that fails half-way, those that were there come back."""
    if len(targets) == 1:
        _put(partials[0], targets[0])
        return
    backups = [_beside(target) for target in targets]
    existed = [target.exists() for target in targets]
    moved: list[int] = []
    try:
        for number, target in enumerate(targets):
            if existed[number]:
                _keep(target, backups[number])
        try:
            for number, (partial, target) in enumerate(zip(partials, targets, strict=True)):
                moved.append(number)
                _put(partial, target)
        except BaseException:
            for number in moved:
                if existed[number]:
                    backups[number].replace(targets[number])
                elif not partials[number].exists():  # it had been moved
                    targets[number].unlink(missing_ok=True)
            raise
    finally:
        for backup in backups:
            _remove(backup)


def _remove(path: Path) -> None:
    if os.path.lexists(path):  # also false where its folder is none
        path.unlink()


def _put(partial: Path, target: Path) -> None:
    if _special(target):
        with partial.open("rb") as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    else:
        partial.replace(target)


def _keep(target: Path, backup: Path) -> None:
    """A second name for what ``target`` is now, or a copy where the disk knows no such names."""
    if not target.is_file():
        return
    try:
        os.link(target, backup)
    except OSError:
        shutil.copy2(target, backup)


@contextmanager
def _explained(paths: Sequence[str | Path], what: str = "") -> Iterator[None]:
    """Turn OSErrors of the block into :class:`PrunusFileError`."""
    try:
        yield
    except PrunusFileError:
        raise
    except OSError as error:
        names = ", ".join(repr(str(path)) for path in paths)
        raise _failure(f"cannot write {what}{' ' if what else ''}{names}", error) from error


def _failure(what: str, error: OSError) -> PrunusFileError:
    """What went wrong, with the operating system's number for it (``errno``)."""
    failure = PrunusFileError(f"{what}: {error.strerror or error}")
    failure.errno = error.errno
    return failure
