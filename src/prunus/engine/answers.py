"""Whether what a method answers makes sense, before anything is changed by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prunus.errors import PrunusError
from prunus.method import Selection
from prunus.method.view import View


def check_answers(name: str, views: Sequence[View], answers: Sequence[Selection]) -> None:
    """Raise PrunusError unless ``answers`` of the method ``name`` are one for each of ``views``,
    and name tokens that are there."""
    if len(answers) != len(views):
        raise PrunusError(
            f"{name}.choose returned {len(answers)} selections for {len(views)} views: give one "
            "for each"
        )
    doubts = Doubts()
    for view, answer in zip(views, answers, strict=True):
        _check(name, view, answer, doubts)
    doubts.settle()


class Doubts:
    """What must hold of tensors, read from the device once for all of it."""

    def __init__(self) -> None:
        self._doubts: list[tuple[Tensor, str]] = []

    def add(self, right: Tensor, message: str) -> None:
        """Unless ``right`` (bool, one) holds, ``message`` will be raised."""
        self._doubts.append((right, message))

    def settle(self) -> None:
        """Raise PrunusError for the first that does not hold."""
        if not self._doubts:
            return
        device = self._doubts[0][0].device
        holds = torch.stack([right.to(device) for right, _ in self._doubts]).tolist()
        for right, (_, message) in zip(holds, self._doubts, strict=True):
            if not right:
                raise PrunusError(message)
        self._doubts = []


def _check(name: str, view: View, answer: Selection, doubts: Doubts) -> None:
    groups, count = view.present.shape
    parts = ("kept", "scores", "labels", "order", "into", "weights", "mix")
    for part in parts:
        given: Any = getattr(answer, part)
        if given is not None and len(given) != groups:
            raise PrunusError(
                f"{name}: {part} is for {len(given)} images, and the view has {groups}: give one "
                "row for each"
            )
    if answer.scores is not None:
        ordered = ~torch.isnan(answer.scores).any()
        doubts.add(ordered, f"{name}: scores hold NaN, so that there is no order among tokens")
    for kept in [answer.kept] if isinstance(answer.kept, Tensor) else answer.kept:
        if kept.dtype != torch.int64 or not 1 <= kept.ndim <= 2:
            raise PrunusError(
                f"{name}: kept has dtype {kept.dtype} and shape {tuple(kept.shape)}: give int64 "
                "indices, [images, kept], or a tensor for each image"
            )
        if kept.numel():
            doubts.add(
                _ascending(kept, count),
                f"{name}: kept must be ascending indices, each once, into the {count} tokens that "
                f"are there (0 to {count - 1})",
            )
    if answer.scores is not None and answer.scores.shape != (groups, count):
        raise PrunusError(
            f"{name}: scores have shape {tuple(answer.scores.shape)}, expected {(groups, count)} "
            "(images, tokens)"
        )
    for own, order in zip(answer.kept, answer.order or (), strict=False):
        message = f"{name}: order and kept are not the same tokens"
        if order.shape != own.shape:
            raise PrunusError(message)
        doubts.add((order.sort().values == own.to(order.device)).all(), message)
    for weights in answer.weights if answer.weights is not None else ():
        message = (
            f"{name}: weights must be one finite number for each of the {count} tokens that are "
            "there"
        )
        if weights.shape != (count,):
            raise PrunusError(message)
        doubts.add(torch.isfinite(weights).all(), message)


def _ascending(kept: Tensor, count: int) -> Tensor:
    """Whether each row is ascending, without repetition, within ``range(count)``."""
    ends = [kept.new_full((*kept.shape[:-1], 1), end) for end in (-1, count)]
    return (torch.cat([ends[0], kept, ends[1]], -1).diff(dim=-1) > 0).all()
