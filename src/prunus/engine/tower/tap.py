"""Visual features as learned selectors read them, caught on their way into the projector."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.engine.calls import by_name
from prunus.engine.hooks import before
from prunus.engine.prompt import Image
from prunus.engine.tower.seen import Rows, TowerSeen
from prunus.engine.traffic import Traffic
from prunus.errors import PrunusError
from prunus.families import Family


class _Here(threading.local):
    """Features of one thread's next prompt."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []


class Tap:
    """A hook on the projector. ``generate`` runs the tower before the prompt, so features are held
    until their prompt starts."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._here = _Here()
        self._traffic = Traffic()

    def attach(self, owner: object, traffic: Traffic) -> None:
        """Register the hook, for calls that ``traffic`` admits."""
        self._traffic = traffic
        before(owner, self._family.projector, self._note)

    def forget(self) -> None:
        """Let go of features: those of the next call are coming, or there is none."""
        self._here.seen = []

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._traffic.admits():
            return
        states = next(iter(by_name(module, args, kwargs).values()))
        self._here.seen.append(states.detach())

    def take(self, images: Sequence[Image], seen_by: TowerSeen) -> None:
        """Add to ``seen_by`` the features of the images of a prompt, of those of their tokens that
        are there.

        Raises:
            PrunusError: the tower did not run for exactly these images.
        """
        seen, self._here.seen = self._here.seen, []
        rows = [one for features in seen for one in features]
        own = {(image.kind, image.order): image for image in images}
        passes = {key: len(self._family.tower_grids(own[key].grid)) for key in own}
        different = dict.fromkeys(image.grid for image in own.values())
        places = {grid: self._family.places(grid) for grid in different}
        found: list[Tensor] = []
        for key in sorted(own) if sum(passes.values()) == len(rows) else ():
            found.append(_cells(places[own[key].grid], rows[: passes[key]]))
            rows = rows[passes[key] :]
        keys = sorted(own)
        if [len(one) for one in found] != [len(own[key].present) for key in keys]:
            raise PrunusError(
                "a method reads the vision tower's features, but the tower did not run "
                f"for these {len(own)} images inside prunus.prune: pass pixel values instead of "
                "features computed before"
            )
        for key, features in zip(keys, found, strict=True):
            seen_by.projected_from[key] = Rows(own[key].present, features)


def _cells(places: Tensor, frames: Sequence[Tensor]) -> Tensor:
    """``[n, D]`` of the tokens of an image that are there, from what the tower gave for each of its
    ``frames``, which may begin with marks; ``places`` as of
    :meth:`~prunus.families.base.Family.places`."""
    whole = torch.cat(list(frames))
    if len(whole) > int(places.max()):
        return whole[places.to(whole.device)]
    first = int(places.min())  # a method left fewer
    return torch.cat([frame[first:] for frame in frames])
