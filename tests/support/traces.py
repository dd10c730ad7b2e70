"""Traces made by hand, on a grid small enough to check: those of methods that decide themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from prunus.grid import Grid
from prunus.method import Edit
from prunus.results.trace import TraceEntry

GRID = Grid(1, 2, 3, (8, 10))  # 16 x 30 pixels
GONE = float("nan")


def picture() -> Any:
    return np.random.default_rng(1).random((16, 30, 3)).astype(np.float32)


def entry(
    kept: Any,
    label: str | list[str] | None = None,
    scores: Any = None,
    layer: int | None = 4,
    place: str = "decoder",
    grid: Grid = GRID,
    **more: Any,
) -> TraceEntry:
    """One sample of as many images as ``kept`` has lists, or several with as many labels."""
    samples = kept if isinstance(label, list) else [kept]
    labels = label if isinstance(label, list) else [label]
    return TraceEntry(
        place=place,
        layer=layer,
        method="visipruner",
        kept=[[torch.tensor(k, dtype=torch.long) for k in own] for own in samples],
        grid=[[grid] * len(own) for own in samples],
        kind=[["image"] * len(own) for own in samples],
        scores=None
        if scores is None
        else [[torch.tensor(s) for s in own] for own in (scores if len(samples) > 1 else [scores])],
        labels=None
        if label is None
        else [[str(one)] * len(own) for one, own in zip(labels, samples, strict=True)],
        **more,
    )


def shallow(images: int = 1, sink: int = 0, **more: Any) -> TraceEntry:
    edits = {0: Edit("merge", "cut", False, sink), 1: Edit("cut")}
    return entry([list(range(6))] * images, layer=0, place="attention", **{"edits": edits, **more})


FILTER = entry([[2, 3]], "filter", [[0.1, 0.2, 0.9, 0.5, 0.0, 0.1]])
EXIT = entry([[]], "exit", [[GONE, GONE, 0.1, 0.2, GONE, GONE]], layer=9)
