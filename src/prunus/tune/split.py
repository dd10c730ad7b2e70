"""Which questions are for choosing, and which are looked at once, when the choice is made.

Each image is on one side, by its pixels alone: it stays there whatever is added to the questions,
whatever its file is called, and whoever asks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunus.compare.identity import digest
from prunus.errors import PrunusError
from prunus.io.files import make_folder, write_text
from prunus.tune.questions import Asked

TUNING, HELD_OUT = "tuning", "held-out"
#: Fewer images say nothing about others.
LEAST_IMAGES = 2
_SALT = "prunus tune"


@dataclass(frozen=True)
class Split:
    """The questions of either side, in the order in which they are asked: every image once, then
    again; images in an order that their pixels say."""

    tuning: tuple[Asked, ...]
    held_out: tuple[Asked, ...]

    @property
    def digests(self) -> list[str]:
        """What the held-out questions are, each by its pixels and words."""
        return [one.digest for one in self.held_out]

    def placed(self, text: str) -> str:
        """``text`` with lines of the files of both sides as those of the file of questions."""
        sides = {TUNING: self.tuning, HELD_OUT: self.held_out}

        def found(match: re.Match[str]) -> str:
            side, line = sides[match[1]], int(match[2])
            return side[line - 1].place if line <= len(side) else match[0]

        return re.sub(rf"\b({TUNING}|{HELD_OUT})\.jsonl, line (\d+)", found, text)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Both sides as files of questions in ``folder``, as ``prunus compare --data`` takes them,
        but for answers that are missing, which are empty."""
        make_folder(folder)
        found, really = [], os.path.realpath(folder)  # .. of a link is not where the link is
        for name, side in ((TUNING, self.tuning), (HELD_OUT, self.held_out)):
            lines = []
            for one in side:
                row = {
                    "image": os.path.relpath(one.image, really),
                    "question": one.text,
                    "answer": one.answer or "",
                    "type": one.type,
                }
                lines.append(json.dumps(row, ensure_ascii=False))
            path = folder / f"{name}.jsonl"
            text = "\n".join(lines) + "\n"
            if not path.is_file() or path.read_bytes() != text.encode():
                write_text(path, text)
            found.append(path)
        return found[0], found[1]


def is_held_out(pixels: str, share: float) -> bool:
    """The side of an image of the digest ``pixels``, if ``share`` of all are held out."""
    return _place(pixels) < share


def split(questions: Sequence[Asked], share: float, limit: int | None = None) -> Split:
    """The two sides of ``questions``; ``limit``: only so many, of the first images.

    Raises:
        PrunusError: a share out of range, or a side of fewer than two images.
    """
    if not 0 < share < 1:
        raise PrunusError(f"--held-out {share:g}: give a share of the images, as in 0.5")
    images = sorted({one.pixels for one in questions}, key=_order)
    if limit is not None:
        left, some = limit, []
        for image in images:
            if left > 0:
                some.append(image)
                left -= sum(one.pixels == image for one in questions)
        images = some
    sides = []
    for held in (False, True):
        own = [one for one in images if is_held_out(one, share) == held]
        if len(own) < LEAST_IMAGES:
            raise PrunusError(
                f"the questions are about {len(images)} images, of which the "
                f"{HELD_OUT if held else TUNING} split gets {len(own)}: ask about more images, "
                "some dozens at least"
            )
        sides.append(_in_turn(questions, own))
    return Split(*sides)


def _in_turn(questions: Sequence[Asked], images: Sequence[str]) -> tuple[Asked, ...]:
    """The questions about ``images``, each image's first one, then each one's second ..."""
    of: dict[str, list[Asked]] = {image: [] for image in images}
    for one in questions:
        if one.pixels in of:
            of[one.pixels].append(one)
    most = max(len(own) for own in of.values())
    return tuple(own[n] for n in range(most) for own in of.values() if n < len(own))


def _place(pixels: str) -> float:
    """A number in 0..1."""
    return int(digest([_SALT, pixels])[:12], 16) / 16**12


def _order(pixels: str) -> str:
    """Another number, which says nothing of the side."""
    return hashlib.sha256(f"{_SALT}: order {pixels}".encode()).hexdigest()
