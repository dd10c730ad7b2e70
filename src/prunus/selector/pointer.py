"""The pointer decoder: one visual token, or STOP, per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunus.selector.blocks import DecoderBlock
from prunus.selector.config import SelectorConfig
from prunus.selector.steps import Steps
from prunus.signals.topk import first_best

_LOOK_EVERY = 16  # steps between two questions to the device whether all samples have stopped


@dataclass(frozen=True)
class Memory:
    """What the decoder points at: image tokens and, in the last slot, STOP.

    Attributes:
        rows: ``[B, N + 1, D]``; valid: bool ``[B, N + 1]``, or None where every slot exists.
        layers: keys and values of each decoder block, computed once.
        keys: ``[B, N + 1, D]`` of the pointer; None where the last block's logits are the pointer.
    """

    rows: Tensor
    valid: Tensor | None
    layers: Sequence[tuple[Tensor, Tensor]]
    keys: Tensor | None


@dataclass(frozen=True)
class Unrolled:
    """A selection as training sees it.

    Attributes:
        log_probs: float32 ``[B, T, N + 1]``; -inf at masked slots.
        picks: int64 ``[B, T]``, slots; ran: bool ``[B, T]``, up to and with the hard STOP.
        counts: int64 ``[B]``, image tokens picked.
    """

    log_probs: Tensor
    picks: Tensor
    ran: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Picks:
    """A selection as inference makes it.

    Attributes:
        order: int64 ``[B, T]``, tokens in the order picked; what lies behind ``counts`` is no part
            of it.
        counts: int64 ``[B]``.
        scores: float32 ``[B, N]``, aggregated score of each token (the larger, the surer).
        margins: float32 ``[B, T]``, STOP's logit (no constant added) less the best token's at each
            step; None where there are no steps. Tokens do not depend on STOP: with a constant c
            the selection ends at the first step (that may stop) where the margin is above -c.
    """

    order: Tensor
    counts: Tensor
    scores: Tensor
    margins: Tensor | None = None


class Pointer(nn.Module):
    """A small causal transformer whose input at each step is the memory row picked before, and
    which starts from a learned vector (arXiv 2606.16067, "Pointer decoder")."""

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.stop = nn.Parameter(torch.randn(width) * 0.02)
        self.stop_bias = nn.Parameter(torch.tensor(config.stop_bias))
        self.norm_memory = nn.LayerNorm(width)
        self.blocks: Any = nn.ModuleList(
            DecoderBlock(width, config.heads, config.mlp_ratio)
            for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(width)
        separate = config.pointer == "separate"
        self.query = nn.Linear(width, width) if separate else None
        self.key = nn.Linear(width, width) if separate else None

    def memory(self, encoded: Tensor, valid: Tensor) -> Memory:
        """The memory of ``encoded [B, N, D]`` image tokens, of which ``valid [B, N]`` exist."""
        batch = encoded.shape[0]
        rows = torch.cat([self.norm_memory(encoded), self.stop.expand(batch, 1, -1)], 1)
        layers = [block.cross.keys_values(rows) for block in self.blocks]
        key = None if self.key is None else self.key(rows)
        if bool(valid.all()):
            return Memory(rows, None, layers, key)
        return Memory(rows, torch.cat([valid, valid.new_ones(batch, 1)], 1), layers, key)

    def unroll(
        self, memory: Memory, most: Sequence[int], keep: Sequence[int] | None = None
    ) -> Unrolled:
        """Select greedily; gradients flow through every step's probabilities, also from later
        steps (straight-through feedback ``M^T (onehot - sg(p) + p)``).

        Args:
            memory: of :meth:`memory`.
            most: T_max of each sample.
            keep: exactly so many tokens of each sample, STOP masked; None: until STOP.
        """
        batch, slots, _ = memory.rows.shape
        limit = torch.tensor(most if keep is None else keep, device=memory.rows.device)
        taken = self._unavailable(memory)
        grown: list[tuple[Tensor, Tensor] | None] = [None] * len(self.blocks)
        state = self.start.expand(batch, 1, -1)
        alive = limit > 0
        log_probs, picks, ran = [], [], []
        for step in range(max(most if keep is None else keep)):
            logits = self._clipped(self._logits(state, memory, _growing(grown)))
            logits = self._masked(logits, taken & alive[:, None], step, keep is not None)
            log_p = logits.log_softmax(-1)
            pick = first_best(logits)
            log_probs.append(log_p)
            picks.append(pick)
            ran.append(alive)
            alive = alive & (pick != slots - 1) & (step + 1 < limit)
            if not bool(alive.any()):
                break
            one = nn.functional.one_hot(pick, slots)
            taken = taken | one.bool()
            p = log_p.exp()
            mixed = (one - p.detach() + p)[:, None]
            state = mixed @ memory.rows
        order, went = torch.stack(picks, 1), torch.stack(ran, 1)
        counts = (went & (order != slots - 1)).sum(1)
        return Unrolled(torch.stack(log_probs, 1), order, went, counts)

    @torch.no_grad()
    def pick(
        self,
        memory: Memory,
        most: Sequence[int],
        keep: Sequence[int] | None = None,
        bias: float = 0.0,
        beta: float = 0.9,
    ) -> Picks:
        """Select greedily. ``bias`` is added to STOP's logit; ``keep`` as in :meth:`unroll`. Steps
        need no value from the device; whether all have stopped is asked for now and then."""
        config, (batch, slots, _) = self.config, memory.rows.shape
        steps, device = max(most if keep is None else keep), memory.rows.device
        limit = torch.tensor(most if keep is None else keep, device=device)
        run = Steps(self.blocks, memory.layers, memory.valid, steps, self.query is None)
        taken = self._unavailable(memory)
        order = torch.zeros(batch, max(steps, 1), dtype=torch.long, device=device)
        counts, alive = torch.zeros_like(limit), limit > 0
        scores = memory.rows.new_zeros(batch, slots - 1)
        surviving = memory.rows.new_ones(batch, 1)
        margins = memory.rows.new_full((batch, max(steps, 1)), -torch.inf)
        rows = memory.rows.flatten(0, 1)
        first = torch.arange(0, len(rows), slots, device=device)  # row of each sample's first slot
        state = self.start.expand(batch, -1)
        for step in range(steps):
            logits = self._clipped(self._pointed(*run(state, step), memory))
            tokens = logits[:, :-1].masked_fill(taken[:, :-1] & alive[:, None], -torch.inf)
            stop = logits[:, -1:] + self.stop_bias
            margins[:, step] = stop[:, 0] - tokens.amax(-1)
            stops = keep is None and step >= config.min_steps
            free = torch.cat([tokens, stop + bias], 1) if stops else tokens
            if config.temperature != 1:
                free = free / config.temperature
            p, pick = free.softmax(-1), first_best(free)
            scores += alive[:, None] * surviving * beta ** (step + 1) * p[:, : slots - 1]
            if stops:
                surviving = surviving * (1 - p[:, -1:])
                alive = alive & (pick != slots - 1)
            order[:, step] = pick
            counts += alive
            alive = alive & (step + 1 < limit)
            taken.scatter_(1, pick[:, None], True)
            state = rows.index_select(0, first + pick)
            if keep is None and step % _LOOK_EVERY == _LOOK_EVERY - 1 and not bool(alive.any()):
                break
        return Picks(order, counts, scores, margins)

    def _pointed(self, state: Tensor, logits: Tensor | None, memory: Memory) -> Tensor:
        """Pointer logits ``[B, N + 1]`` behind the blocks' ``state [B, D]`` and their ``logits``,
        which are the pointer's where it has no projections of its own."""
        if self.query is None or memory.keys is None:
            assert logits is not None
            return logits
        query = self.query(self.norm(state))
        found: Tensor = (memory.keys @ query[..., None])[..., 0] * query.shape[-1] ** -0.5
        return found

    def _unavailable(self, memory: Memory) -> Tensor:
        """Bool ``[B, N + 1]``: slots that cannot be picked at the first step."""
        if memory.valid is None:
            return torch.zeros(memory.rows.shape[:2], dtype=torch.bool, device=memory.rows.device)
        return ~memory.valid

    def _logits(
        self, state: Tensor, memory: Memory, extend: Callable[[int], Callable[..., Any]]
    ) -> Tensor:
        """Pointer logits ``[B, N + 1]`` of one step with input ``state [B, 1, D]``."""
        valid = None if memory.valid is None else memory.valid[:, None, None]
        logits = state
        for number, block in enumerate(self.blocks):
            state, logits = block(state, memory.layers[number], valid, extend(number))
        if self.query is None or memory.keys is None:
            return logits
        query = self.query(self.norm(state))
        found: Tensor = (query @ memory.keys.transpose(1, 2))[:, 0] * query.shape[-1] ** -0.5
        return found

    def _clipped(self, logits: Tensor) -> Tensor:
        clip = self.config.clip
        return clip * (logits / clip).tanh() if clip else logits

    def _masked(self, logits: Tensor, taken: Tensor, step: int, endless: bool) -> Tensor:
        """Logits of the slots that may be picked at ``step``, -inf at the others (in rows that have
        stopped nothing is ``taken``, so that something is left to pick and to ignore)."""
        config = self.config
        stop = logits[:, -1:] + self.stop_bias
        if endless or step < config.min_steps:
            stop = torch.full_like(stop, -torch.inf)
        logits = torch.cat([logits[:, :-1], stop], 1) / config.temperature
        blocked = torch.cat([taken[:, :-1], torch.zeros_like(taken[:, -1:])], 1)
        return logits.masked_fill(blocked, -torch.inf)


def _growing(
    grown: list[tuple[Tensor, Tensor] | None],
) -> Callable[[int], Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Keys and values of earlier steps as new tensors, through which gradients flow."""

    def of(number: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def extend(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            before = grown[number]
            if before is not None:
                key, value = torch.cat([before[0], key], 2), torch.cat([before[1], value], 2)
            grown[number] = (key, value)
            return key, value

        return extend

    return of
