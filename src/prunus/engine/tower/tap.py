"""Visual features as learned selectors read them, caught on their way into the projector."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from prunus.engine.calls import by_name
from prunus.engine.hooks import before
from prunus.engine.prompt import Image
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

    def attach(self, owner: object) -> None:
        """Register the hook."""
        before(owner, self._family.projector, self._note)

    def forget(self) -> None:
        """Let go of features: those of the next call are coming, or there is none."""
        self._here.seen = []

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states = next(iter(by_name(module, args, kwargs).values()))
        self._here.seen.append(states.detach())

    def take(self, images: Sequence[Image]) -> list[Tensor]:
        """Features ``[N, D]`` of the images of a prompt in the order of the tower's calls.

        Raises:
            PrunusError: the tower did not run for exactly these images.
        """
        seen, self._here.seen = self._here.seen, []
        found: list[Tensor] = []
        grids = {image.order: image.grid for image in images}
        for features in seen:
            for one in features:
                places = self._family.places(next(iter(grids.values())))
                found.append(one[places.to(one.device)])
        if [len(one) for one in found] != [grids[order].size for order in sorted(grids)]:
            raise PrunusError(
                "a learned selector reads the vision tower's features, but the tower did not run "
                f"for these {len(grids)} images inside prunus.prune: pass pixel values instead of "
                "features computed before"
            )
        return found
