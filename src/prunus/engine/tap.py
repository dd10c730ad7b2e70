"""Visual features as learned selectors read them, caught on their way into the projector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunus.engine.prompt import Image
from prunus.families import Family


class Tap:
    """A hook on the projector. ``generate`` runs the tower before the prompt, so features are held
    until their prompt starts."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._seen: list[Tensor] = []

    def attach(self, add: Callable[[RemovableHandle], None]) -> None:
        """Register the hook through ``add``."""
        add(self._family.projector.register_forward_pre_hook(self._note))

    def forget(self) -> None:
        """Let go of features: those of the next call are coming, or there is none."""
        self._seen = []

    def _note(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._seen.append(args[0].detach())

    def take(self, images: Sequence[Image]) -> list[Tensor]:
        """Features ``[N, D]`` of the images of a prompt in the order of the tower's calls.

        Raises:
            ValueError: the tower did not run for exactly these images.
        """
        seen, self._seen = self._seen, []
        found: list[Tensor] = []
        grids = {image.order: image.grid for image in images}
        for features in seen:
            for one in features:
                before, after = self._family.extra_tokens(next(iter(grids.values())))
                found.append(one[before : len(one) - after])
        if [len(one) for one in found] != [grids[order].size for order in sorted(grids)]:
            raise ValueError(
                "a learned selector reads the vision tower's features, but the tower did not run "
                f"for these {len(grids)} images inside prunus.prune: pass pixel values instead of "
                "features computed before"
            )
        return found
