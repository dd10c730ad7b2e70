"""What every family is asked beside the invariants: costs, where cells lie, a check from disk."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

import prunus
from prunus import Method
from prunus.cli import main
from prunus.families import family_of
from prunus.grid import AnyGrid
from tests.support.families import Kind, marked

Square = tuple[int, int, int]  # left, top and side of a mark, in pixels of the original picture


def marked_inputs(
    kind: Kind, processor: Any, size: tuple[int, int], square: Square
) -> dict[str, Tensor]:
    """A prompt with one black picture with a white square."""
    picture = marked(*size, *square)
    return dict(processor(images=picture, text=f"a{kind.image}what?", return_tensors="pt"))


def boxes_of(grid: AnyGrid, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """``[N, 4]``: left, top, right and bottom of every cell in an original picture of ``size``
    (width, height), into which a grid without an area is stretched."""
    found = []
    for index in range(grid.size):
        _, *box = grid.box(index)
        found.append(box)
    boxes = np.asarray(found, dtype=np.float64)
    if all(part.area is None for part in grid.parts):
        (part,) = grid.parts
        seen = (part.cols * part.cell[1], part.rows * part.cell[0])
        boxes *= np.tile(np.asarray(size) / np.asarray(seen), 2)
    return boxes


def assert_mark_in_boxes(boxes: np.ndarray[Any, Any], bright: np.ndarray[Any, Any], square: Square):
    """Cells whose pixels are ``bright`` (bool ``[N]``) are those whose boxes meet the mark, give or
    take two pixels for resizing."""
    left, top, side = square
    corners = np.array([left, top, left + side, top + side])

    def meet(slack: float) -> np.ndarray[Any, Any]:
        a, b, c, d = corners + slack * np.array([-1, -1, 1, 1])
        return (boxes[:, 0] < c) & (boxes[:, 2] > a) & (boxes[:, 1] < d) & (boxes[:, 3] > b)

    assert bright.any() and not bright.all()
    assert not (bright & ~meet(2)).any() and not (meet(-2) & ~bright).any()


def held_bytes(cache: DynamicCache) -> int:
    """Bytes of all keys, values and states in ``cache``."""
    found = 0
    for layer in cache.layers:
        states = (getattr(layer, name, {}) for name in ("conv_states", "recurrent_states"))
        parts = [getattr(layer, name, None) for name in ("keys", "values")]
        parts += [state for own in states for state in own.values()]
        found += sum(part.nbytes for part in parts if part is not None)
    return found


def assert_costs(model: Any, inputs: dict[str, Tensor], method: Method) -> dict[str, Any]:
    """The report of ``method`` equals what torch counts (language model and tower within 2 %) and
    what the cache holds; it is returned. Logits are asked for at all positions: some models leave
    out layers at those that nobody asked for."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    top = type(model).__name__
    counted, caches = [], []

    def count() -> None:
        caches.append(DynamicCache(config=model.config.get_text_config()))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(**inputs, past_key_values=caches[-1])
        counted.append(counter.get_flop_counts())

    count()
    with prunus.prune(model, method) as run:
        count()
    report = run.report()
    rows = len(inputs["input_ids"])
    assert report["kv_bytes"]["dense"] * rows == held_bytes(caches[0])
    assert report["kv_bytes"]["pruned"] * rows == held_bytes(caches[1]) < held_bytes(caches[0])
    family = family_of(model)
    seen_by = [*family.towers.values(), family.projector]
    found = [n for n, m in model.named_modules() if any(m is one for one in seen_by)]
    # A projector that is part of the tower is counted with it.
    seeing = [n for n in found if not any(n.startswith(f"{other}.") for other in found)]
    decoder = next(f"{top}.{n}" for n, m in model.named_modules() if m is family.language_model)
    for name, torchs in zip(("dense", "pruned"), counted, strict=True):
        mine = report["flops"][name]
        chosen = mine["method"]  # counted where the method works: in the tower, or behind it
        inside = chosen if run.trace[0].place == "encoder" else 0
        language = sum(torchs[decoder].values())
        assert abs(mine["llm"] + chosen - inside - language) < 0.02 * language
        seen = sum(sum(torchs[f"{top}.{n}"].values()) for n in seeing if f"{top}.{n}" in torchs)
        whole = mine["encoder"] + mine["projector"] + inside
        assert abs(whole - seen) < 0.02 * seen
    return dict(report)


def assert_check_passes(folder: Path, capsys: Any, refused: set[str]) -> None:
    """``prunus check`` on a saved model: nothing fails, and of the methods that come with it only
    ``refused`` ones are refused (and learned ones, which have no selector for it, and compositions
    of refused ones)."""
    with pytest.raises(SystemExit) as end:
        main(["check", "--model", str(folder), "--json"])
    assert not end.value.code
    facts = json.loads(capsys.readouterr().out)
    assert facts["ok"]
    found = {row["method"] for row in facts["rows"] if row["status"] == "refused"}
    composed = {"prunus"} if "tome" in refused else set()
    assert found - {"stepwise", "one-shot"} == refused | composed
