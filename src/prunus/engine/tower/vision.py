"""The vision side of one engine: what merges in the tower, and what is looked at there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prunus.engine.lent import lend
from prunus.engine.plan import Plan
from prunus.engine.prefill import Prefill
from prunus.engine.tower.seen import TowerSeen
from prunus.engine.tower.stage import TowerStage
from prunus.engine.tower.tap import Tap
from prunus.engine.traffic import Traffic
from prunus.families import Family, attention_modules


class Vision:
    """Hooks in the tower and on the projector, where some method needs them; else nothing."""

    def __init__(self, family: Family, plan: Plan) -> None:
        self._family = family
        inside = plan.in_tower is not None or plan.tower_looks or plan.summary
        self.stage = TowerStage(family, plan) if inside else None
        self.tap = Tap(family) if plan.reads_features and family.reads_tower else None

    @property
    def works(self) -> bool:
        """Whether anything is hooked."""
        return self.stage is not None or self.tap is not None

    def attach(self, owner: object, loans: dict[Any, Any], traffic: Traffic) -> None:
        """Register all hooks; features are tapped behind the last merge."""
        if self.works:
            for tower in self._family.towers.values():
                for attention in attention_modules(tower):
                    attention.config = lend(owner, attention, None, loans)
        if self.stage is not None:
            self.stage.attach(owner, traffic)
        if self.tap is not None:
            self.tap.attach(owner, traffic)

    def leave(self) -> None:
        """Let go of everything that this thread's tower did."""
        self.ended()
        if self.tap is not None:
            self.tap.forget()

    def generating(self, call: Mapping[str, Any]) -> None:
        """``generate`` is called with these arguments, and runs the tower before the prompt."""
        if self.stage is not None:
            self.stage.expect(call)
        if self.tap is not None:
            self.tap.forget()

    def called(self, core: Mapping[str, Any]) -> None:
        """The multimodal model is called with these arguments."""
        if self.stage is not None:
            self.stage.expect(core)
        if self.tap is not None and self._family.brings_pixels(core):
            self.tap.forget()

    def passed(self) -> None:
        """The tower had its turn; nothing of the call is held on to."""
        if self.stage is not None:
            self.stage.expect({})

    def ended(self) -> None:
        """The multimodal model's call came to its end."""
        if self.stage is not None:
            self.stage.forget()

    def check_unused(self) -> None:
        """Raise PrunusStateError if the tower merged for a call that was not seen as a whole."""
        if self.stage is not None:
            self.stage.check_unused()

    def hand_over(self, running: Prefill, states: Tensor) -> Tensor:
        """What the tower did goes over to the prompt ``running``: ``states`` (the language model's
        input) without the places that it left empty, and what was looked at.

        Raises:
            PrunusError: the tower did not run on these images under our eyes.
        """
        seen = TowerSeen(None if self.stage is None else self._family.tower_adapter())
        if self.stage is not None:
            states = self.stage.hand_over(running, states, seen)
        if self.tap is not None:
            self.tap.take(running.images, seen)
        running.looks.tower = seen
        return states
