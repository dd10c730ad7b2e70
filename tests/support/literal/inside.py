"""What methods inside the language model choose, read literally: loops over the states and maps of
unmodified layers that are called one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import prunus
from prunus import Method, TraceEntry
from tests.support.models import Case
from tests.support.oracles.layered import Line, apply, walk
from tests.support.oracles.masked import positions
from tests.support.runs import gap, plain

#: Does what a method does at this layer, and returns for each image what it kept (indices among its
#: original tokens, ascending), or None where it does nothing here.
Literal = Callable[[Line, list[list[int]]], "list[list[int]] | None"]


def behind(line: Line, tokens: list[int], places: list[int], spots: list[list[int]]) -> list[int]:
    """Those of ``tokens`` that are text behind an image at ``places``."""
    visual = line.holders.union(*spots)  # CLS of another image is no text either
    return [token for token in tokens if token > places[-1] and token not in visual]


def rotated(line: Line, layer: int, states: Tensor, kind: str) -> Tensor:
    """Queries or keys (``kind`` "q" or "k") ``[S, H, d]`` of ``layer`` for the line's tokens, as
    they are where its positions are now."""
    block = line.model.get_decoder().layers[layer]
    attention = block.self_attn
    flat = getattr(attention, f"{kind}_proj")(block.input_layernorm(states))
    heads = flat.view(len(states), -1, attention.head_dim)
    cos, sin = (table[0] for table in line.rope())
    half = attention.head_dim // 2
    found = torch.empty_like(heads)
    for head in range(heads.shape[1]):
        one = heads[:, head]
        turned = torch.cat([-one[:, half:], one[:, :half]], dim=1)
        found[:, head] = one * cos + turned * sin
    return found


def softmax(logits: Sequence[float]) -> list[float]:
    high = max(logits)
    powers = [math.exp(one - high) for one in logits]
    return [one / sum(powers) for one in powers]


def number_of(line: Line, places: list[int]) -> list[int]:
    """Which original tokens of an image at ``places`` are there, ascending."""
    return [number for number, place in enumerate(places) if place in line.tokens]


def drop(line: Line, spots: list[list[int]], kept: list[list[int]]) -> None:
    """Go on without the tokens of images that are not ``kept``."""
    gone = {
        place
        for places, own in zip(spots, kept, strict=True)
        for number, place in enumerate(places)
        if number not in own
    }
    line.go_on([token for token in line.tokens if token not in gone])


def check(
    case: Case,
    method: Method,
    literal: Callable[[], Literal],
    inputs: dict[str, Tensor] | None = None,
    before: Sequence[Method] = (),
    tolerance: float = 1e-4,
) -> list[TraceEntry]:
    """What ``method`` keeps at each stage in a padded batch, and the logits of what is left,
    against the ``literal`` reading of it, row by row. Returns its part of the trace."""
    inputs = case.prompts.rows(2, 1) if inputs is None else inputs
    where = positions(case.model, inputs)
    with prunus.prune(case.model, [*before, method]) as run:
        logits = plain(case.model, {**inputs, "position_ids": where})
    earlier = [one for one in run.trace if one.method != method.name]
    own = [one for one in run.trace if one.method == method.name]
    assert own
    for row, spots in enumerate(case.prompts.spots(inputs["input_ids"])):
        reading, stages = literal(), []

        def cut(line: Line, row: int = row, spots: Any = spots) -> None:
            for entry in earlier:
                if (entry.layer or 0) == line.layer:
                    apply(line, entry, row, spots)
            kept = reading(line, spots)  # noqa: B023 - called in this turn
            if kept is not None:
                stages.append((line.layer, kept))  # noqa: B023

        line, found = walk(case.model, inputs, row, cut)
        assert [(one.layer, [k.tolist() for k in one.kept[row]]) for one in own] == stages
        assert gap(logits[row, line.tokens], found) < tolerance
    return own
