"""Which visual tokens each decoder layer does not see, read from a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.engine.tower.seats import seated
from prunus.method import Edit
from prunus.results.trace import TraceEntry


class NoOracle(Exception):
    """A comparison cannot be made for this model or backend; the message says why."""


@dataclass(frozen=True)
class Hidden:
    """What decoder layers see of a batch of prompts of length L, in the *unpruned* model.

    Attributes:
        valid: bool ``[B, L]``, no padding.
        visual: bool ``[B, L]``, visual tokens that have a cell of a grid.
        prompt: for each layer bool ``[B, L]``: hidden while the prompt is read.
        later: for each layer bool ``[B, L]``: hidden also from tokens behind the prompt.
        edits: layers whose attention is edited while the prompt is read.
        beyond: what cuts inside the language model did that no mask can do, in words, or "".
    """

    valid: Tensor
    visual: Tensor
    prompt: Sequence[Tensor]
    later: Sequence[Tensor]
    edits: Mapping[int, Edit]
    beyond: str = ""

    @classmethod
    def of(
        cls,
        trace: Sequence[TraceEntry],
        spots: Sequence[Sequence[Tensor]],
        valid: Tensor,
        depth: int,
    ) -> Hidden:
        """From what a trace says was kept; ``spots[row][image]`` are positions."""
        visual = torch.zeros_like(valid)
        for row, images in enumerate(spots):
            for spot in images:
                visual[row, spot] = True
        prompt = [torch.zeros_like(valid) for _ in range(depth)]
        later = [torch.zeros_like(valid) for _ in range(depth)]
        for entry in trace:
            dropped = _dropped(entry, spots, valid)
            cut = -1 if entry.layer is None else entry.layer
            for layer in range(depth):
                if layer >= cut:
                    prompt[layer] |= dropped
                if layer >= cut or entry.trim_cache:
                    later[layer] |= dropped
                if layer in entry.forgets:
                    later[layer] |= visual
        edits = {layer: edit for entry in trace for layer, edit in entry.edits.items()}
        inside = [entry for entry in trace if entry.place == "decoder"]
        merged = any(parts[0].numel() for e in inside for own in e.mix or () for parts in own)
        beyond = "merges tokens" * merged or "closes positions up" * any(e.compact for e in inside)
        return cls(valid, visual, prompt, later, edits, beyond)

    @property
    def alive(self) -> Tensor:
        """Bool ``[B, L]``: tokens that reach the end of the model."""
        return self.valid & ~self.prompt[-1]

    @property
    def length(self) -> int:
        """L, tokens of a row of the prompt."""
        return self.valid.shape[1]

    def present(self, layer: int) -> Tensor:
        """Bool ``[B, L]``: visual tokens that are there in ``layer``."""
        return self.visual & ~self.prompt[layer]

    def resident(self, layer: int, reach: int) -> Tensor:
        """Int64 ``[B]``: tokens that the cache of ``layer`` holds of each row's prompt, of whose
        positions the last ``reach`` are held in the unmodified model (sliding windows)."""
        return (self.valid & ~self.later[layer])[:, self.length - reach :].sum(1)


def _dropped(entry: TraceEntry, spots: Sequence[Sequence[Tensor]], valid: Tensor) -> Tensor:
    gone = torch.zeros_like(valid)
    for row, images in enumerate(spots):
        for spot, kept, grid in zip(images, entry.kept[row], entry.grid[row], strict=True):
            kept = kept.to(spot.device)
            gone[row, spot] = True
            if len(spot) == grid.size:
                gone[row, spot[kept]] = False
            else:  # tokens of the tower, which went around the model's pooling
                frames = grid.frames
                gone[row, seated(spot, kept, frames, grid.size // frames)[kept]] = False
    return gone
