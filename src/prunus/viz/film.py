"""The frames of a video with what was kept of each: what contact sheets and animations show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunus.grid import AnyGrid
from prunus.results.trace import TraceEntry
from prunus.viz.entry import Before, Spot, draw_entry, last_removal
from prunus.viz.figure import Panel
from prunus.viz.overlay import kept_cells
from prunus.viz.pane import panes
from prunus.viz.seen import Picture, resized_image

_SIDE = 320  # pixels: larger pictures are drawn smaller; a sheet shows 240 of them
_COLOUR = 0.3  # of dropped patches: no other picture of the frame shows what was there


@dataclass(frozen=True)
class Film:
    """A video of a prompt, or those of its frames that are an input of their own.

    Attributes:
        frames: as they were given to the processor.
        times: seconds at which they are shown.
        grid: where its visual tokens lie; each of its slices stands for as many frames.
        image: its number among the images and videos of the prompt.
        trace: the entries of the prompt.
        sample: which sample of the batch.
        video: the number of the video, from 1.
    """

    frames: Sequence[Image.Image]
    times: Sequence[float]
    grid: AnyGrid
    image: int
    trace: Sequence[TraceEntry]
    sample: int = 0
    video: int = 1

    @property
    def together(self) -> int:
        """Frames of a slice; the last one may have fewer."""
        return -(-len(self.frames) // self.grid.frames)

    @property
    def kept(self) -> list[int]:
        """How many visual tokens are left in each slice; where all leave in the end, before
        that."""
        return self._counts(self._removal)

    @property
    def at_the_end(self) -> list[int]:
        """How many visual tokens the last layers have of each slice."""
        return self._counts(last_removal(self.trace))

    @property
    def merges(self) -> bool:
        """Whether tokens that are left stand for regions."""
        return self._removal is not None and self._removal[0].merged_into is not None

    @property
    def _removal(self) -> tuple[TraceEntry, Before] | None:
        return last_removal(self.trace, self.sample)

    def _counts(self, removal: tuple[TraceEntry, Before] | None) -> list[int]:
        if removal is None:
            return [self.per_slice] * self.grid.frames
        cells = kept_cells(removal[0].kept[self.sample][self.image], self.grid)
        counts = [int(pane.of(cells).sum()) for pane in panes(self.grid)]
        return [sum(counts[number :: self.grid.frames]) for number in range(self.grid.frames)]

    @property
    def per_slice(self) -> int:
        """Visual tokens of a slice before anything was removed."""
        return self.grid.size // self.grid.frames

    def drawn(self) -> Iterator[Picture]:
        """Each frame as the model saw it, what was dropped pale; parts of it that are
        tokens of their own beside each other."""
        for number, frame in enumerate(self.frames):
            yield _beside([self._part(frame, number, part) for part in range(len(self.grid.parts))])

    def _part(self, frame: Image.Image, number: int, part: int) -> Picture:
        picture = resized_image(frame, self.grid.parts[part])
        if self._removal is None:
            return picture
        pane = part * self.grid.frames + number // self.together
        entry, before = self._removal
        drawn, _ = draw_entry(entry, Spot(picture, self.sample, self.image, pane), before, _COLOUR)
        return drawn

    def facts(self) -> list[dict[str, Any]]:
        """For each slice the times of its frames and its visual tokens, before and in the end."""
        steps = range(0, len(self.times), self.together)
        return [
            {"times": list(self.times[at : at + self.together]), "of": self.per_slice, "kept": kept}
            for at, kept in zip(steps, self.at_the_end, strict=True)
        ]

    def titles(self) -> list[str]:
        """For each frame when it is shown and how many tokens of its slice are left."""
        kept = self.kept
        return [
            f"{clock(time)}: {kept[number // self.together]} of {self.per_slice}"
            for number, time in enumerate(self.times)
        ]


def sheet_rows(films: Sequence[Film], columns: int, note: str = "") -> list[list[Panel]]:
    """A contact sheet: every frame of ``films`` in rows of ``columns``, with ``note`` below the
    first of the last row."""
    panels = [
        Panel(_small(picture), title)
        for film in films
        for picture, title in zip(film.drawn(), film.titles(), strict=True)
    ]
    rows = [panels[at : at + columns] for at in range(0, len(panels), columns)]
    first = rows[-1][0]
    rows[-1][0] = Panel(first.picture, first.title, note)
    return rows


def clock(seconds: float) -> str:
    """``7.5 s``, from a minute on ``1:07.5``."""
    tenths = round(seconds * 10)
    if tenths < 600:
        return f"{tenths / 10:.1f} s"
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else str(minutes)
    return f"{start}:{rest / 10:04.1f}"


def _beside(pictures: Sequence[Picture]) -> Picture:
    """Pictures of any height in one, from left to right."""
    if len(pictures) == 1:
        return pictures[0]
    height = max(picture.shape[0] for picture in pictures)
    filled = [
        np.pad(one, ((0, height - one.shape[0]), (0, 4), (0, 0)), constant_values=1.0)
        for one in pictures
    ]
    joined: Picture = np.concatenate(filled, axis=1)
    return joined


def as_bytes(picture: Picture) -> NDArray[np.uint8]:
    """``picture`` in 8 bits per channel."""
    return np.rint(np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8)


def _small(picture: Picture) -> Picture:
    """``picture``, or a smaller one where it has more pixels than a sheet shows."""
    if max(picture.shape[:2]) <= _SIDE:
        return picture
    image = Image.fromarray(as_bytes(picture))
    image.thumbnail((_SIDE, _SIDE))
    return np.asarray(image, dtype=np.float32) / 255.0
