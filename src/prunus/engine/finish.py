"""After the last layer: the output back at full length, the cache told what it holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from prunus.engine.cache import PrunedLayer, Resident
from prunus.engine.layout import Layout
from prunus.engine.prefill import Prefill


def spread_output(running: Prefill, output: Any) -> Any:
    """The language model's output with every hidden state at full length.

    Rows of removed positions repeat the nearest survivor before them: what stands there says
    nothing about the removed token.
    """
    output.last_hidden_state = running.layout.spread(output.last_hidden_state)
    if output.get("hidden_states") is not None:
        # Entry 0 is the input of the first layer, entry i the output of layer i - 1.
        output.hidden_states = tuple(
            None if states is None else _full(running, max(0, number - 1), number, states, output)
            for number, states in enumerate(output.hidden_states)
        )
    return output


def _full(running: Prefill, layer: int, number: int, states: Tensor, output: Any) -> Tensor:
    if number == running.depth:  # transformers makes the last entry the normed output
        last: Tensor = output.last_hidden_state
        return last
    return running.layouts[layer].spread(states)


def resident_cache(running: Prefill, cache: Cache | None) -> None:
    """Trim the cache as the cuts ask for, and mark every layer that holds less than the prompt."""
    if cache is None:
        return
    tail, shift = _tail(running), _shift(running)
    for number in range(running.depth):
        own = running.layouts[number]
        layout, _ = running.resident(number)
        if layout.whole:
            continue
        layer = cache.layers[number]
        keys, values = layer.keys, layer.values
        if layout is not own:
            keys, values = _pick(own, keys, layout), _pick(own, values, layout)
        logical = layout.slot.shape[1]
        prompt = Resident(layout.size, logical, layout.valid, tail, shift)
        cache.layers[number] = PrunedLayer(keys, values, prompt)


def _pick(own: Layout, states: Tensor, layout: Layout) -> Tensor:
    """Gather keys or values ``[B, H, S, d]`` from one layout into another."""
    source = own.slot.gather(1, layout.index).to(states.device)[:, None, :, None]
    return states.gather(2, source.expand(-1, states.shape[1], -1, states.shape[3]))


def _tail(running: Prefill) -> int:
    """Tokens at the end of every row that stand behind its last visual token (0 where a row ends
    in padding: the pruned row does not)."""
    present = running.entry.present
    length = present.shape[1]
    if not bool(present[:, -1].all()):
        return 0
    last = max(int(image.positions[-1]) for image in running.images)
    return length - 1 - last


def _shift(running: Prefill) -> Tensor | None:
    if not running.compact:
        return None
    now, device = running.visual(), running.entry.index.device
    dropped = [then - left for then, left in zip(running.original, now, strict=True)]
    return torch.tensor(dropped, device=device)
