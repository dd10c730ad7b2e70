"""What every cell keeps of a few questions: data for pictures, side by side."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from prunus.compare.columns import DENSE
from prunus.compare.contract import Picture, Shown
from prunus.compare.course import Course, Ledger
from prunus.compare.desk import Desk
from prunus.compare.store import Store
from prunus.compare.timing import prompt_of
from prunus.errors import PrunusError
from prunus.evaluate.scoring import is_right
from prunus.grid import AnyGrid
from prunus.inference.batches import encode
from prunus.results.events import in_order, label_of
from prunus.results.trace import TraceEntry
from prunus.tasks.sets import Clip
from prunus.viz.as_seen import pictures_as_seen
from prunus.viz.pane import panes

#: Significant digits of scores: pictures show their order.
_DIGITS = 4


def chosen_questions(course: Course, count: int) -> list[int]:
    """``count`` questions, spread evenly."""
    numbers = course.numbers
    return [numbers[len(numbers) * at // count] for at in range(min(count, len(numbers)))]


@torch.inference_mode()
def take_pictures(
    course: Course,
    desk: Desk,
    rows: Mapping[str, Ledger],
    count: int,
    store: Store,
    step: Callable[[int], None],
) -> list[Picture]:
    """``count`` pictures, with what each of ``rows`` (keys of rows, and the ledgers of their first
    seeds) keeps of it; none of a model that has no one grid for an image."""
    found = []
    for number in chosen_questions(course, count):
        one, prepared = prompt_of(desk, course, number)
        grid, query = prepared.grid, course.data.queries[number]
        if grid is None:
            continue
        shown: dict[str, Shown] = {}
        for key, ledger in rows.items():
            column = ledger.column
            if column.cell.prunes:
                about = {"picture of": ledger.identity, "question": ledger.names[number]}
                known = store.read("pictures", about)
                if known is None:
                    asker = desk.asker(column.budget)
                    given = asker.ask(column.cell, [one], {query.image: prepared})
                    known = choice(given.trace, grid)
                    store.write("pictures", about, known)
                if known:
                    text = ledger.given[number].text
                    right = is_right(text, query.answer)
                    whole: Any = {**known, "answer": text, "right": right}
                    shown[key] = whole
            step(1)
        png, size = _drawn(desk, course, number, grid)
        found.append(
            Picture(
                run=course.id,
                image=query.image,
                png=png,
                size=size,
                frames=len(panes(grid)),
                grid=_shape(grid),
                cells=cells_of(grid),
                question=course.numbers.index(number),
                text=query.text,
                answer=query.answer,
                dense=course.dense.given[number].text,
                shown=shown,
            )
        )
    return found


def choice(trace: Sequence[TraceEntry], grid: AnyGrid) -> dict[str, Any]:
    """What a trace of one prompt with one image says, as of :class:`Shown` without the answer;
    empty where its tokens lie on another grid (a method went around the pooling of a video)."""
    stages = [entry for entry in in_order(trace) if entry.place != "attention"]
    if any(entry.grid[0][0] != grid for entry in stages):
        return {}
    every = list(range(grid.size))
    if not stages:
        return {"kept": [every], "layers": [None], "labels": ["all"], "scores": None, "into": None}
    scored = next((one.scores for one in stages if one.scores is not None), None)
    merged = next((one.merged_into for one in stages[::-1] if one.merged_into is not None), None)
    kept = [[int(token) for token in entry.kept[0][0]] for entry in stages]
    into = None
    if merged is not None:
        left = set(kept[-1])
        into = [owner if owner in left else -1 for owner in merged[0][0].tolist()]
    return {
        "kept": kept,
        "layers": [entry.layer for entry in stages],
        "labels": [" ".join(filter(None, [one.method, label_of(one, 0)])) for one in stages],
        "scores": None if scored is None else [_short(one) for one in scored[0][0].tolist()],
        "into": into,
    }


def _short(score: float) -> float | None:
    return float(f"{score:.{_DIGITS}g}") if math.isfinite(score) else None


def cells_of(grid: AnyGrid) -> list[list[float]]:
    """``[left, top, right, bottom, frame]`` of every token, frames as of :func:`_drawn`."""
    found = []
    for number, pane in enumerate(panes(grid)):
        height, width = pane.grid.cell
        for row in range(pane.grid.rows):
            for col in range(pane.grid.cols):
                box = [col * width, row * height, (col + 1) * width, (row + 1) * height]
                found.append([float(side) for side in box] + [float(number)])
    return found


def _shape(grid: AnyGrid) -> list[int] | None:
    if len(grid.parts) > 1:
        return None
    [part] = grid.parts
    return [part.frames, part.rows, part.cols]


def _drawn(desk: Desk, course: Course, number: int, grid: AnyGrid) -> tuple[str, list[int]]:
    """The picture as the model saw it, as a ``data:`` address, and the size of one frame: slices of
    a video and parts of an image stand beside each other, small ones in their upper left corners.
    """
    query = course.data.queries[number]
    seen = desk.data.seen(query.image)
    _, pixels = encode(desk.processor, number, query.text, seen)
    frames = list(seen.frames) if isinstance(seen, Clip) else [seen]
    [pictures] = pictures_as_seen(desk.processor, pixels, [frames], [grid])
    if len(pictures) != len(panes(grid)):
        raise PrunusError(
            f"{len(pictures)} pictures were seen, and the visual tokens lie in {len(panes(grid))}"
        )
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    whole = np.zeros((height, width * len(pictures), 3), dtype=np.uint8)
    for at, picture in enumerate(pictures):
        rows, cols = picture.shape[:2]
        whole[:rows, at * width : at * width + cols] = (255 * picture).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(whole).save(file, format="PNG", optimize=True)
    address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return address, [width, height]


__all__ = ["DENSE", "cells_of", "choice", "chosen_questions", "take_pictures"]
