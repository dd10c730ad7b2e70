"""One call of the vision tower: what is left from block to block, and what is looked at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prunus.engine.tower.groups import Group, Reduced, by_image
from prunus.engine.tower.inside import Inside
from prunus.engine.tower.rows import Merge, Pairs, Standing, length_of, rows_of
from prunus.engine.tower.seats import Unpooled, check_seats
from prunus.engine.tower.seen import Key, Name, Rows, TowerSeen
from prunus.engine.watch import choosing
from prunus.errors import PrunusError, PrunusStateError
from prunus.families.towers.base import Arrangement, Frames, Tower
from prunus.grid import AnyGrid, tile_order
from prunus.method import Method, tower_part
from prunus.method.capabilities import RepeatsMerges
from prunus.method.view import View

Counts = Callable[[AnyGrid], int | None]
"""Tokens that are to be left of each frame, or tile, of an input; None: the method does not say."""

_SIGNS = itertools.count()  # tells apart what different calls gave to be pooled


class TowerPass:
    """One call of the tower, from its first block to the end of the projector.

    Args:
        tower: adapter of the tower.
        method: what merges in it, or None: it is only looked at.
        counts: the method's budget.
        looks: names of what is kept of blocks, by block.
        call: the tower's own arguments; grids: of its images; kind: what the call is for.
        asked: grids of these in the prompt; of what the model pools, smaller ones.
        stays: for each, of what the model leaves some away, which of the tower's tokens stand in
            the cells of the prompt's grid (:meth:`~prunus.families.base.Family.stays`), or None.
    """

    def __init__(
        self,
        tower: Tower,
        method: Method | None,
        counts: Counts,
        looks: Mapping[int, frozenset[Name]],
        call: dict[str, Any],
        grids: Sequence[Any],
        kind: str | None,
        asked: Sequence[AnyGrid] | None = None,
        stays: Sequence[Tensor | None] | None = None,
    ) -> None:
        self.asked = list(grids if asked is None else asked)
        self._stays = [None] * len(self.asked) if stays is None else list(stays)
        self.pooled = [
            one != own and stay is None
            for one, own, stay in zip(self.asked, grids, self._stays, strict=True)
        ]
        self._left: Tensor | None = None  # behind the projector, where the model pools
        self._sign = 0.0
        self.tower, self.method, self.kind = tower, method, kind
        self.grids: list[Any] = list(grids)
        self._given, self._looks, self._part = call, looks, tower_part(method)
        self._device = device = next(
            value.device for value in call.values() if isinstance(value, Tensor)
        )
        self.groups = [
            Group(frames, removals, device)
            for one in tower.frames(grids)
            for removals, frames in self._alike(one, counts)
        ]
        for group in self.groups:
            group.check(self.name, tower.read)
        self.macs = 0.0
        self.summary: Tensor | None = None
        inside = tower.inside([group.frames for group in self.groups], call).on(device)
        self._inside = Standing.of(inside, self.present)
        self._running: Merge | None = None  # of the block that runs now
        self._pending: Merge | None = None  # for the entrance of the next block
        self._done: list[tuple[int, Callable[[Arrangement], Merge]]] = []  # merges, by block
        self._early: list[tuple[int, Tensor, Tensor]] = []  # block, what was left, and what for
        self._before: list[Tensor] = []
        self._block = -1
        self._call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self._bias: Tensor | None = None
        self._seen: dict[str, Tensor] = {}
        self._kept: dict[int, list[tuple[Tensor, dict[Name, Tensor]]]] = {}
        self._orders: dict[tuple[AnyGrid, torch.device], Tensor | None] = {}

    @property
    def name(self) -> str:
        """Of the method."""
        return "" if self.method is None else self.method.name

    def _alike(self, frames: Frames, counts: Counts) -> list[tuple[tuple[int, ...], Frames]]:
        """``frames`` by what each block removes of them.

        Raises:
            PrunusError: the tower runs all at one length, and they would have several.
        """
        images = dict.fromkeys(image for image, _ in frames.members)
        removed = {image: self._removals(image, frames.grid.size, counts) for image in images}
        found = [
            (one, Frames(frames.grid, [own for own in frames.members if removed[own[0]] == one]))
            for one in dict.fromkeys(removed.values())
        ]
        if len(found) > 1 and not self.tower.takes_lengths:
            left = " and ".join(str(frames.grid.size - sum(one)) for one, _ in found)
            raise PrunusError(
                f"{self.name} is to leave {left} tokens of frames that this vision tower runs at "
                "one length: give inputs of equally many frames, or a budget for each frame"
            )
        return found

    def _removals(self, image: int, size: int, counts: Counts) -> tuple[int, ...]:
        if self._part is None:
            return (0,) * self.tower.read
        if isinstance(self._part, RepeatsMerges):
            return tuple(self._part.repeated(self.tower.read, size, self.kind, image))
        return tuple(self._part.merges(self.tower.read, size, counts(self.grids[image])))

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

    def concerns(self, block: int) -> bool:
        """Whether ``block`` merges anything, or is looked at."""
        return block in self._looks or self.merges_at(block)

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
        rows = self._inside.rows
        if rows is not None and self._part is not None and self._part.proportional:
            self._bias = self._sizes(states.device).log_()
        rows = None if rows is None else rows.to(states.device)
        self._call = self.tower.enter(block, (args, kwargs), rows, self._bias)
        return self._call

    def tap(self, block: int, name: str, output: Tensor) -> None:
        """Note what a module inside the attention of a block that matters gave."""
        if block == self._block and self.concerns(block):
            self._seen[name] = output.detach()

    def look(self, block: int) -> None:
        """Keep what is asked for of ``block``, whose attention has run."""
        if block not in self._looks:
            return
        with torch.no_grad():
            self._kept[block] = [
                (
                    group.present,
                    {name: self.take(block, name, n) for name in sorted(self._looks[block])},
                )
                for n, group in enumerate(self.groups)
            ]

    def merge(self, block: int, states: Tensor) -> Tensor:
        """Let the method choose, and merge ``states``, what the attention of ``block`` left."""
        method, before = self._part, self.present
        assert method is not None  # only then is anything removed
        with torch.no_grad(), torch.autocast(states.device.type, enabled=False):
            pairs: list[Pairs | None] = []
            for number, group in enumerate(self.groups):
                if not group.removals[block]:
                    pairs.append(None)
                    continue
                with choosing():
                    answer = method.merge(self._view(number, block, states))
                self.macs += len(group.frames.members) * (answer.macs or 0.0)
                pairs.append(group.merge(block, answer))
            self._running, self._inside = self._inside.merged(pairs)

            def as_rows(arrangement: Arrangement) -> Merge:
                return Standing.of(arrangement, before).merged(pairs)[0]

        self._done.append((block, as_rows))
        self._before = before
        self._seen = {}
        return self._running.apply(states)

    def leave(self, block: int, output: Tensor) -> Tensor:
        """The MLP's ``output`` for every token that entered the block."""
        running, self._running = self._running, None
        if running is None:
            raise PrunusStateError(f"the MLP of tower block {block} ran without its norm")
        self._pending = running
        return running.spread(output)

    def settled(self, states: Tensor) -> Tensor:
        """What a block left, with the merge that the next one would begin with."""
        return states if self._pending is None else self._pending.apply(states)

    def early(self, block: int, values: Tensor) -> Tensor:
        """What stands for ``values``, which were made of what ``block`` left: at full length, and
        filled in when the tower is done. Tokens that merge later take them along."""
        arrangement = self.tower.projected([group.frames for group in self.groups], self._given).on(
            self._device
        )
        full = values.new_zeros(arrangement.length, values.shape[-1])
        self._early.append((block, values, full))
        return full

    def _fill(self, arrangement: Arrangement) -> None:
        """Give those that :meth:`early` put aside what they stand for."""
        for block, values, full in self._early:
            for later, merge in self._done:
                values = merge(arrangement).apply(values) if later > block else values
            full.index_copy_(0, rows_of(arrangement, self.present).to(full.device), values)
        self._early = []

    def features(self, states: Tensor) -> Tensor:
        """What enters the projector: the last merge, where the features were taken before it; at
        full length where the model goes by the size of each image."""
        frames = [group.frames for group in self.groups]
        arrangement = self.tower.features(frames, self._given).on(self._device)
        last, merge = self._done[-1] if self._done else (-1, None)
        late = last == self.tower.read - 1
        expected = length_of(arrangement, self._before if late else self.present)
        if states.flatten(0, -2).shape[0] != expected:
            raise PrunusError(
                f"the projector was given {tuple(states.shape[:-1])} features, but the vision "
                f"tower left {expected}: take them from the layer and with the selection strategy "
                "that the model's configuration names"
            )
        if late and merge is not None:
            states = merge(arrangement).apply(states)
        return self._spread(arrangement, states) if self.tower.whole else states

    def projected(self, states: Tensor) -> Tensor:
        """The projector's output at full length: survivors at their own places, zeros elsewhere; of
        what the model pools, one number everywhere, by which it is known again."""
        frames = [group.frames for group in self.groups]
        arrangement = self.tower.projected(frames, self._given).on(self._device)
        self._fill(arrangement)
        if any(self.pooled):
            self._left, self._sign = states, float(1 + next(_SIGNS) % 200)
            each = arrangement.length // len(states)
            return states.new_full((len(states), each, states.shape[-1]), self._sign)
        if not self.tower.whole:
            return self._spread(arrangement, states)
        rows = rows_of(arrangement, self.present).to(states.device)
        flat = states.flatten(0, -2)
        return torch.zeros_like(flat).index_copy(0, rows, flat[rows]).view_as(states)

    def _spread(self, arrangement: Arrangement, states: Tensor) -> Tensor:
        """``states`` of what is left at full length, zeros elsewhere."""
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
                f"{self.name} was to merge in the vision tower, whose blocks ran without "
                "prunus' hooks: if the tower was compiled before, call torch._dynamo.reset()"
            )
        if not all(group.sound for group in self.groups):
            raise PrunusError(
                f"{self.name}.merge named a source twice, or a destination that is a source"
            )
        found = by_image(self.groups, len(self.grids), Group.reduced, self._joined)
        if not any(self.pooled):
            return found
        if self._left is None:  # nothing was merged: the model pooled all
            return [own.untouched(asked.size) for own, asked in zip(found, self.asked, strict=True)]
        features = self._left.split([grid.frames for grid in self.grids])
        return [
            replace(own, unpooled=Unpooled(grid, one.flatten(0, 1), self._sign))
            for own, grid, one in zip(found, self.grids, features, strict=True)
        ]

    def check_pooling(self) -> None:
        """Raise PrunusError where the model pools the tower's tokens, and these are looked at, or
        more is left of a frame than its prompt has places for."""
        if any(self.pooled):
            sizes = [group.frames.grid.size for group in self.groups]
            left = [n - sum(g.removals) for n, g in zip(sizes, self.groups, strict=True)]
            check_seats(self.name, bool(self._looks), self.merges, self.asked, sizes, left)

    def _joined(self, pieces: list[Reduced], image: int) -> Reduced:
        order = self._order(image, pieces[0].kept.device)
        found = Reduced.joined(pieces)
        return found if order is None else found.numbered(order)

    def _order(self, image: int, device: torch.device) -> Tensor | None:
        """Int64 ``[N]``: the tokens of an image in the order in which the tower has them; None:
        their own."""
        key = (self.grids[image], device)
        if key not in self._orders:
            order = tile_order(key[0])
            own = order == tuple(range(len(order)))
            self._orders[key] = None if own else torch.tensor(order, device=device)
        return self._orders[key]

    def tell(self, seen: TowerSeen, kind: str) -> None:
        """Add to ``seen`` what was kept, as of images of ``kind``."""
        for block, groups in self._kept.items():
            names = groups[0][1]
            for name in names:
                by_group = {id(group): own for group, own in zip(self.groups, groups, strict=True)}

                def each(group: Group, name: Name = name) -> list[Rows]:
                    present, values = by_group[id(group)]  # noqa: B023 - called at once
                    return list(map(Rows, present.unbind(), values[name].unbind()))

                found = by_image(self.groups, len(self.grids), each, self._rows_joined)
                keyed: dict[Key, Rows] = {(kind, n): own for n, own in enumerate(found)}
                seen.blocks.setdefault(block, {}).setdefault(name, {}).update(keyed)
        if self.summary is not None and len(self.summary) == len(self.grids):  # not of frames
            seen.summaries.update({(kind, n): own for n, own in enumerate(self.summary)})

    def _rows_joined(self, frames: list[Rows], image: int) -> Rows:
        grid, order = self.grids[image], self._order(image, frames[0].present.device)
        found = Rows.joined(frames, grid.size // grid.pieces)
        found = found if order is None else found.numbered(order)
        stay = self._stays[image]
        if stay is None:
            return found
        return Rows(torch.arange(len(stay), device=stay.device), found.of(stay))

    def _view(self, number: int, block: int, states: Tensor) -> View:
        group = self.groups[number]
        return View(
            grid=group.frames.grid,
            present=group.present,
            sizes=group.sizes,
            count=group.removals[block],
            owners=group.frames.members,
            samples=len(self.grids),
            depth=0,
            memo={},
            source=Inside(self, number, block, states),
            sees=(self._part and self._part.in_tower) or (),
            kind=self.kind,
            block=block,
            blocks=self.tower.read,
            carry=group.carry,
        )

    def mean(self, values: Tensor, number: int) -> Tensor:
        """Over the patches of each token of a group, as the block began: ``[rows, D]`` to ``[G, T,
        D]``."""
        picked = values[self._inside.slots[number].to(values.device)]
        return picked.squeeze(2) if picked.shape[2] == 1 else picked.mean(2)

    def take(self, block: int, name: Name, number: int) -> Tensor:
        """What ``name`` means, of the tokens of a group, as the block began: ``[G, T, ...]``."""
        if name not in ("summary", "all", "joined"):
            rotary, joined = name.startswith("rotary"), name.endswith("joined")
            return self.mean(self.tower.keys(block, self._seen, self._call, rotary, joined), number)
        if name not in self._seen:  # of all groups at once
            tower = self.tower
            attention = {"summary": tower.summed, "all": tower.received, "joined": tower.joined}
            self._seen[name], macs = attention[name](block, self._seen, self._call, self._bias)
            self.macs += macs
        values = self._seen[name]
        return values[self._inside.slots[number].to(values.device)].sum(2)

    def _sizes(self, device: torch.device) -> Tensor:
        """Float32, one per row that is left: how many original tokens it stands for."""
        slots = self._inside.slots
        sizes = torch.ones(self._inside.length, dtype=torch.float32, device=slots[0].device)
        for own, group in zip(slots, self.groups, strict=True):
            sizes[own] = group.sizes[..., None].expand(own.shape)
        return sizes.to(device)
