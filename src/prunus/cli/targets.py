"""Where commands write what they were asked to: found out before they begin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from prunus.cli.errors import BadInput
from prunus.io.files import check_place


def check_target(option: str, path: Path, what: str, read: Sequence[Path]) -> None:
    """Raise where ``what`` cannot be written to ``path``, or would replace a file that is ``read``,
    or lie in a folder that is.

    Raises:
        BadInput: it would.
        PrunusFileError: it cannot be written.
    """
    check_place(path, what)
    for one in read:
        if os.path.isdir(one):
            if os.path.realpath(path.parent) == os.path.realpath(one):
                raise BadInput(
                    f"{option} {str(path)!r} would be among the frames of {str(one)!r}: give a "
                    "place outside that folder"
                )
        elif os.path.isfile(path) and os.path.isfile(one) and os.path.samefile(path, one):
            raise BadInput(
                f"{option} {str(path)!r} would replace what is looked at: give another file name"
            )
