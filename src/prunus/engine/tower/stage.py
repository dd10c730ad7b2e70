"""The stage inside the vision tower: tokens merge between attention and MLP of unmodified blocks.

A block keeps its residual to itself. What enters its second norm is merged, so that norm and MLP
run on fewer tokens; the MLP's output is spread back, so that the block's own sum fits; and the sum
is merged at the entrance of the next block (or of the projector). Merging is linear, so this equals
a merge between the two, and every later block really runs on what is left.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from prunus.engine.calls import by_name
from prunus.engine.hooks import after, before
from prunus.engine.plan import Plan
from prunus.engine.prefill import Prefill
from prunus.engine.tower.groups import Reduced
from prunus.engine.tower.passing import TowerPass
from prunus.engine.tower.seen import TowerSeen
from prunus.engine.traffic import Traffic
from prunus.errors import PrunusError, PrunusStateError
from prunus.families import Family
from prunus.families.towers.base import Tower
from prunus.grid import AnyGrid, Grid
from prunus.method import tower_part


class _Here(threading.local):
    """The tower's calls of one thread: that which runs, arguments of the model's call that may run
    it, the grids that are still to come, and the calls that are done, by kind."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """As if nothing had run."""
        self.running: TowerPass | None = None
        self.coming: Mapping[str, Any] = {}
        self.expected: list[tuple[str, list[AnyGrid]]] = []
        self.done: dict[str | None, TowerPass] = {}


def _size(grid: Grid) -> tuple[int, int, int]:
    return grid.frames, grid.rows, grid.cols


class TowerStage:
    """Hooks in the tower and on the projector: for one method that merges in there, and for what
    others look at of its blocks."""

    def __init__(self, family: Family, plan: Plan) -> None:
        self._family, self._plan, self._method = family, plan, plan.in_tower
        if self._method is not None:
            family.check_merging()
        self._towers, self._here = family.tower_adapters(), _Here()
        self._traffic = Traffic()
        part = tower_part(self._method)
        for tower in self._towers.values() if part is not None else ():
            default = family.default_grid()
            if default is not None:  # known before anything runs
                one = Grid(1, default.rows, default.cols, default.cell)
                part.merges(tower.read, one.size, self._count(one))
            if part.proportional:
                self._check_bias(tower)

    def _count(self, grid: AnyGrid) -> int | None:
        """Tokens that are to be left of each frame, or tile, of an input on ``grid``."""
        method = self._plan.in_tower
        if method is None:
            return None
        counts = self._plan.budget.counts(method, grid.pieces, grid.size)
        return None if counts is None else counts[-1]

    def _check_bias(self, tower: Tower) -> None:
        backend = self._family.config.vision_config._attn_implementation
        asked = f"{self._name}: proportional attention adds a bias to the tower's attention"
        if not tower.takes_bias:
            raise PrunusError(
                f"{asked} logits, and that of {self._family.name} takes none: leave it off"
            )
        if backend not in ("eager", "sdpa"):
            raise PrunusError(
                f"{asked} logits, which needs eager or sdpa attention, not {backend!r}: leave it "
                "off, or call model.set_attn_implementation('sdpa')"
            )

    @property
    def _name(self) -> str:
        return "prunus" if self._method is None else self._method.name

    @property
    def merges(self) -> bool:
        """Whether a method acts in the tower."""
        return self._method is not None

    def attach(self, owner: object, traffic: Traffic) -> None:
        """Register all hooks, for calls that ``traffic`` admits."""
        self._traffic = traffic
        for tower in self._towers.values():
            for number, block in enumerate(tower.blocks):
                before(owner, block, self._entering(number))
                if number < tower.read or number in self._plan.tower_looks:
                    before(owner, tower.norm(number), self._merging(number))
                    after(owner, tower.mlp(number), self._leaving(number))
                    for name, module in tower.taps(number).items():
                        after(owner, module, self._tapping(number, name))
            for number, module in tower.early.items():
                before(owner, module, self._before_early)
                after(owner, module, self._after_early(number))
            if self._plan.summary and tower.has_summary:
                after(owner, tower.blocks[tower.read - 1], self._summing(tower))
        projector = self._family.projector
        for module in dict.fromkeys(tower.exit or projector for tower in self._towers.values()):
            before(owner, module, self._before_projector)
        after(owner, projector, self._after_projector)
        for kind, module in self._family.towers.items():  # last: it makes the others work
            before(owner, module, self._before_tower(kind, self._towers[kind]))

    def forget(self) -> None:
        """Let go of what this thread's tower did or does."""
        self._here.clear()

    def expect(self, call: Mapping[str, Any]) -> None:
        """The model is called with these arguments. They are looked at when the tower runs, so
        that a decode step costs nothing."""
        self._here.coming = call

    def check_unused(self) -> None:
        """Raise PrunusStateError if the tower merged for a call that was not seen as a whole."""
        done, self._here.done = self._here.done, {}
        if any(run.merges for run in done.values()):
            raise PrunusStateError(
                f"{self._name} merged tokens in the vision tower for a call of the model "
                "that goes around the multimodal model, or that came when pruning ended: call the "
                "model as a whole, inside the block"
            )

    def _before_tower(self, kind: str | None, tower: Tower) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            if not self._traffic.visit():
                self._here.clear()
                return
            self._begin(kind, tower, by_name(module, args, kwargs))

        return hook

    def _begin(self, kind: str | None, tower: Tower, call: dict[str, Any]) -> None:
        """The ``tower`` of a ``kind`` (None: of all) is called."""
        for block in tower.blocks if self.merges else ():
            if block.training and getattr(block, "gradient_checkpointing", False):
                raise PrunusError(
                    "gradient checkpointing of the vision tower while a method merges inside it "
                    "is not supported: put the tower into evaluation mode (a frozen tower needs "
                    "no checkpointing), or switch checkpointing off"
                )
        if self._here.coming:
            self._here.expected = list(self._family.grids_of(self._here.coming).items())
            self._here.coming = {}
        grids: Sequence[Any] = tower.grids(call)
        # One tower may serve all kinds, one after the other, and its call does not say which; nor
        # does it say which of its images are frames of one video.
        found: str | None = None
        asked: list[AnyGrid] | None = None
        stays: list[Tensor | None] | None = None
        while self._here.expected and found is None:
            name, wanted = self._here.expected.pop(0)
            passes = [own for grid in wanted for own in self._family.tower_grids(grid)]
            if kind in (None, name) and [*map(_size, passes)] == [*map(_size, grids)]:
                found, grids = name, self._family.seen_whole(name, wanted)
                asked, stays = wanted, [self._family.stays(grid) for grid in wanted]
                if self.merges and any(own is not None for own in stays):
                    raise PrunusError(
                        f"methods inside the vision tower are not supported for "
                        f"{self._family.name} where an {name} is cut into tiles: behind the tower "
                        "the model leaves tokens away by their places, and what was merged into "
                        "these would be lost"
                    )
        plan = self._plan
        run = TowerPass(
            tower, plan.in_tower, self._count, plan.tower_looks, call, grids, found, asked, stays
        )
        run.check_pooling()
        self._here.running = run

    def hand_over(self, running: Prefill, states: Tensor, seen: TowerSeen) -> Tensor:
        """What the tower left goes over to the prompt ``running``: ``states`` (the language model's
        input) without the empty places, and to ``seen`` what was looked at.

        Raises:
            PrunusError: the tower did not run on these images under our eyes.
        """
        done, self._here.done = self._here.done, {}
        reduced: dict[str, list[Reduced]] = {}
        for kind in dict.fromkeys(image.kind for image in running.images):
            grids = {image.order: image.grid for image in running.images if image.kind == kind}
            run = done.get(kind) or done.get(None)
            if run is None or run.asked != [grids[order] for order in sorted(grids)]:
                acts = "acts inside" if self.merges else "looks at"
                raise PrunusError(
                    f"{self._plan.name} {acts} the vision tower, which did not run for this "
                    "prompt inside prunus.prune: pass pixel values instead of features computed "
                    "before"
                )
            running.tower_macs += run.macs
            run.tell(seen, kind)
            if self.merges:
                reduced[kind] = run.reduced()
        if self._method is None:
            return states
        return running.adopt(self._method, reduced, states)

    def _entering(self, number: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            run = self._here.running
            concerned = run is not None and (run.merges or run.concerns(number))
            return run.enter(number, args, kwargs) if run is not None and concerned else None

        return hook

    def _tapping(self, number: int, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            if self._here.running is not None:
                self._here.running.tap(number, name, output)

        return hook

    def _merging(self, number: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]) -> Any:
            run = self._here.running
            if run is not None:
                run.look(number)
            if run is None or not run.merges_at(number):
                return None
            return (run.merge(number, args[0]), *args[1:]), kwargs

        return hook

    def _leaving(self, number: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Any:
            run = self._here.running
            merging = run is not None and run.merges_at(number)
            return run.leave(number, output) if run is not None and merging else None

        return hook

    def _summing(self, tower: Tower) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if self._here.running is not None:
                states = output[0] if isinstance(output, tuple) else output
                self._here.running.summary = tower.summary(states.detach())

        return hook

    def _before_early(self, module: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]) -> Any:
        run = self._here.running
        if run is None or not run.merges:
            return None
        return (run.settled(args[0]), *args[1:]), kwargs

    def _after_early(self, number: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Tensor) -> Any:
            run = self._here.running
            return run.early(number, output) if run is not None and run.merges else None

        return hook

    def _before_projector(
        self, module: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]
    ) -> Any:
        run = self._here.running
        if run is None or not run.merges:
            return None
        return (run.features(args[0]), *args[1:]), kwargs

    def _after_projector(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Tensor
    ) -> Any:
        run, self._here.running = self._here.running, None
        self._traffic.end_visit()
        if run is None:
            return None
        self._here.done[run.kind] = run
        return run.projected(output) if run.merges else None
