"""The stage inside the vision tower: tokens merge between attention and MLP of unmodified blocks.

A block keeps its residual to itself. What enters its second norm is merged, so that norm and MLP
run on fewer tokens; the MLP's output is spread back, so that the block's own sum fits; and the sum
is merged at the entrance of the next block (or of the projector). Merging is linear, so this equals
a merge between the two, and every later block really runs on what is left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.engine.calls import by_name
from prunus.engine.hooks import after, before
from prunus.engine.prefill import Prefill
from prunus.engine.tower.groups import Group, Reduced
from prunus.engine.tower.rows import Merge, merge_rows, rows_of, token_rows
from prunus.errors import PrunusError, PrunusStateError
from prunus.families import Family
from prunus.families.towers.base import Tower
from prunus.grid import AnyGrid, Grid
from prunus.method.base import Method
from prunus.method.merging import TowerView


class TowerPass:
    """One call of the tower, from its first block to the end of the projector."""

    def __init__(
        self,
        tower: Tower,
        method: Method,
        call: dict[str, Any],
        grids: Sequence[Grid],
        kind: str | None,
    ) -> None:
        self.tower, self.method, self.grids, self.kind = tower, method, list(grids), kind
        self._given = call
        frames = tower.frames(grids)
        device = next(value.device for value in call.values() if isinstance(value, Tensor))
        self.groups = [
            Group(one, method.merges(tower.read, one.grid.size), device) for one in frames
        ]
        for group in self.groups:
            group.check(method.name, tower.read)
        self.macs = 0.0
        self._inside = tower.inside(frames, call)
        self._rows: Tensor | None = None  # original rows that are left; None: all of them
        self._running: Merge | None = None  # of the block that runs now
        self._pending: Merge | None = None  # for the entrance of the next block
        self._last: Callable[..., Merge] | None = None
        self._last_block = -1
        self._before: list[Tensor] = []
        self._block = -1
        self._call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self._bias: Tensor | None = None
        self._seen: dict[str, Tensor] = {}

    @property
    def present(self) -> list[Tensor]:
        """For each group, int64 ``[G, T]``: original tokens that are left."""
        return [group.present for group in self.groups]

    @property
    def merges(self) -> bool:
        """Whether any block merges anything."""
        return any(any(group.removals) for group in self.groups)

    def merges_at(self, block: int) -> bool:
        """Whether ``block`` merges anything."""
        return block < self.tower.read and any(group.removals[block] for group in self.groups)

    def enter(self, block: int, args: Any, kwargs: dict[str, Any]) -> Any:
        """Arguments of ``block`` for what is left."""
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        if self._pending is not None:
            states, self._pending = self._pending.apply(states), None
            if args:
                args = (states, *args[1:])
            else:
                kwargs = {**kwargs, "hidden_states": states}
        self._block, self._seen = block, {}
        if self._rows is not None and self.method.attention_by_size:
            self._bias = self._sizes(states.device).log()
        rows = None if self._rows is None else self._rows.to(states.device)
        self._call = self.tower.enter(block, (args, kwargs), rows, self._bias)
        return self._call

    def tap(self, block: int, name: str, output: Tensor) -> None:
        """Note what a module inside the attention of a merging block gave."""
        if block == self._block and self.merges_at(block):
            self._seen[name] = output.detach()

    def merge(self, block: int, states: Tensor) -> Tensor:
        """Let the method choose, and merge ``states``, what the attention of ``block`` left."""
        before = self.present
        with torch.no_grad(), torch.autocast(states.device.type, enabled=False):
            chosen = []
            for number, group in enumerate(self.groups):
                if group.removals[block]:
                    view = self._view(number, block, states, before)
                    answer = self.method.merge(view)
                    self.macs += len(group.frames.members) * answer.macs
                    chosen.append(group.merge(block, answer))
                else:
                    chosen.append(group.nothing())
            sources, destinations, weights = zip(*chosen, strict=True)
            after = self.present

            def as_rows(arrangement: Any) -> Merge:
                return merge_rows(arrangement, before, after, sources, destinations, weights)

            self._running = as_rows(self._inside)
            self._rows = rows_of(self._inside, after)
        self._last, self._last_block, self._before = as_rows, block, before
        self._seen = {}
        return self._running.apply(states)

    def leave(self, block: int, output: Tensor) -> Tensor:
        """The MLP's ``output`` for every token that entered the block."""
        running, self._running = self._running, None
        if running is None:
            raise PrunusStateError(f"the MLP of tower block {block} ran without its norm")
        self._pending = running
        return running.spread(output)

    def features(self, states: Tensor) -> Tensor:
        """What enters the projector: the last merge, where the features were taken before it."""
        frames = [group.frames for group in self.groups]
        arrangement = self.tower.features(frames, self._given)
        late = self._last is not None and self._last_block == self.tower.read - 1
        expected = len(rows_of(arrangement, self._before if late else self.present))
        if states.flatten(0, -2).shape[0] != expected:
            raise PrunusError(
                f"the projector was given {tuple(states.shape[:-1])} features, but the vision "
                f"tower left {expected}: take them from the layer and with the selection strategy "
                "that the model's configuration names"
            )
        return self._last(arrangement).apply(states) if late and self._last else states

    def projected(self, states: Tensor) -> Tensor:
        """The projector's output at full length: survivors at their own places, zeros elsewhere."""
        frames = [group.frames for group in self.groups]
        arrangement = self.tower.projected(frames, self._given)
        rows = rows_of(arrangement, self.present).to(states.device)
        full = states.new_zeros(arrangement.length, states.shape[-1])
        full = full.index_copy(0, rows, states.flatten(0, -2))
        return full.view(*states.shape[:-2], -1, states.shape[-1])

    def reduced(self) -> list[Reduced]:
        """What is left of each image, in the order in which the tower was given them.

        Raises:
            PrunusError: the method's answer was no merge.
        """
        if any(group.pending for group in self.groups):
            raise PrunusStateError(
                f"{self.method.name} was to merge in the vision tower, whose blocks ran without "
                "prunus' hooks: if the tower was compiled before, call torch._dynamo.reset()"
            )
        if not all(bool(group.sound) for group in self.groups):
            raise PrunusError(
                f"{self.method.name}.merge named a source twice, or a destination that is a source"
            )
        parts: dict[int, dict[int, Reduced]] = {}
        for group in self.groups:
            for number, (image, frame) in enumerate(group.frames.members):
                one = group.reduced(number)
                parts.setdefault(image, {})[frame] = one
        return [
            Reduced.joined([parts[image][frame] for frame in sorted(parts[image])])
            for image in range(len(self.grids))
        ]

    def _view(
        self, number: int, block: int, states: Tensor, present: Sequence[Tensor]
    ) -> TowerView:
        group, seen, call, bias = self.groups[number], self._seen, self._call, self._bias
        rows = token_rows(self._inside, present, number)

        def mean(values: Tensor) -> Tensor:
            """Over the patches of each token: ``[rows, D]`` to ``[G, T, D]``."""
            picked = values[rows.to(values.device)]
            return picked.squeeze(2) if picked.shape[2] == 1 else picked.mean(2)

        def received() -> Tensor:
            if "received" not in seen:  # of all groups at once
                seen["received"], macs = self.tower.received(block, seen, call, bias)
                self.macs += macs
            values = seen["received"]
            return values[rows.to(values.device)].sum(2)

        return TowerView(
            grid=group.frames.grid,
            present=group.present,
            sizes=group.sizes,
            members=group.frames.members,
            kind=self.kind,
            block=block,
            blocks=self.tower.read,
            count=group.removals[block],
            carry=group.carry,
            _states=lambda: mean(states.detach().flatten(0, -2)),
            _keys=lambda: mean(self.tower.keys(block, seen)),
            _received=received,
        )

    def _sizes(self, device: torch.device) -> Tensor:
        """Float32, one per row that is left: how many original tokens it stands for."""
        if self._rows is None:
            return torch.ones(self._inside.length, dtype=torch.float32, device=device)
        sizes = torch.ones(len(self._rows), dtype=torch.float32, device=self._rows.device)
        for number, group in enumerate(self.groups):
            rows = token_rows(self._inside, self.present, number)
            sizes[rows] = group.sizes[..., None].expand(rows.shape)
        return sizes.to(device)


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
        self.skipping = False


class EncoderStage:
    """Hooks in the tower and on the projector, for one method that merges in there."""

    def __init__(self, family: Family, method: Method) -> None:
        self._family, self._method, self._tower = family, method, family.encoder()
        self._here = _Here()
        default = family.default_grid()
        if default is not None:  # known before anything runs
            group = Grid(1, default.rows, default.cols, default.cell)
            method.merges(self._tower.read, group.size)
        if method.attention_by_size:
            self._check_bias()

    def _check_bias(self) -> None:
        backend = self._family.config.vision_config._attn_implementation
        asked = f"{self._method.name}: proportional attention adds a bias to the tower's attention"
        if not self._tower.takes_bias:
            raise PrunusError(
                f"{asked} logits, and that of {self._family.name} takes none: leave it off"
            )
        if backend not in ("eager", "sdpa"):
            raise PrunusError(
                f"{asked} logits, which needs eager or sdpa attention, not {backend!r}: leave it "
                "off, or call model.set_attn_implementation('sdpa')"
            )

    def attach(self, owner: object) -> None:
        """Register all hooks."""
        tower = self._tower
        for number, block in enumerate(tower.blocks):
            before(owner, block, self._entering(number))
            if number < tower.read:
                before(owner, tower.norm(number), self._merging(number))
                after(owner, tower.mlp(number), self._leaving(number))
                for name, module in tower.taps(number).items():
                    after(owner, module, self._tapping(number, name))
        before(owner, self._family.projector, self._before_projector)
        after(owner, self._family.projector, self._after_projector)
        before(owner, self._family.tower, self._before_tower)  # last: it makes the others work

    def forget(self) -> None:
        """Let go of what this thread's tower did or does."""
        self._here.clear()

    def expect(self, call: Mapping[str, Any]) -> None:
        """The model is called with these arguments. They are looked at when the tower runs, so
        that a decode step costs nothing."""
        self._here.coming, self._here.skipping = call, False

    def check_unused(self) -> None:
        """Raise PrunusStateError if the tower merged for a call that was not seen as a whole."""
        done, self._here.done = self._here.done, {}
        if any(run.merges for run in done.values()):
            raise PrunusStateError(
                f"{self._method.name} merged tokens in the vision tower for a call of the model "
                "that began before the `with` block did (in another thread), or that goes around "
                "the multimodal model: call the model as a whole, inside the block"
            )

    def skip(self) -> None:
        """The tower's next call is nobody's: pruning ends."""
        self._here.skipping = True

    def _before_tower(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self._here.skipping:
            self._here.clear()
            return
        for block in self._tower.blocks:
            if block.training and getattr(block, "gradient_checkpointing", False):
                raise PrunusError(
                    "gradient checkpointing of the vision tower while a method merges inside it "
                    "is not supported: put the tower into evaluation mode (a frozen tower needs "
                    "no checkpointing), or switch checkpointing off"
                )
        if self._here.coming:
            self._here.expected = list(self._family.grids_of(self._here.coming).items())
            self._here.coming = {}
        call = by_name(module, args, kwargs)
        grids = self._tower.grids(call)
        # One tower serves all kinds, one after the other, and its call does not say which.
        kind = None
        while self._here.expected and kind is None:
            name, wanted = self._here.expected.pop(0)
            kind = name if wanted == grids else None
        self._here.running = TowerPass(self._tower, self._method, call, grids, kind)

    def hand_over(self, running: Prefill, states: Tensor) -> Tensor:
        """What the tower left goes over to the prompt ``running``: ``states`` (the language model's
        input) without the empty places.

        Raises:
            PrunusError: the tower did not run on these images under our eyes.
        """
        done, self._here.done = self._here.done, {}
        reduced: dict[str, list[Reduced]] = {}
        for kind in dict.fromkeys(image.kind for image in running.images):
            grids = {image.order: image.grid for image in running.images if image.kind == kind}
            run = done.get(kind) or done.get(None)
            if run is None or run.grids != [grids[order] for order in sorted(grids)]:
                raise PrunusError(
                    f"{self._method.name} acts inside the vision tower, which did not run for this "
                    "prompt inside prunus.prune: pass pixel values instead of features computed "
                    "before"
                )
            running.tower_macs += run.macs
            reduced[kind] = run.reduced()
        return running.adopt(self._method, reduced, states)

    def _entering(self, number: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            run = self._here.running
            return run.enter(number, args, kwargs) if run is not None and run.merges else None

        return hook

    def _tapping(self, number: int, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            if self._here.running is not None:
                self._here.running.tap(number, name, output)

        return hook

    def _merging(self, number: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]) -> Any:
            run = self._here.running
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
        if run is None:
            return None
        self._here.done[run.kind] = run
        return run.projected(output) if run.merges else None
