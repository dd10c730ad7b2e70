"""After the last layer: the output back at full length, the cache told what it holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, LinearAttentionLayer

from prunus.engine.cache import PrunedState, Resident, pruned_layer
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


def resident_cache(running: Prefill, cache: Cache) -> None:
    """Trim the cache as the cuts ask for, and mark every layer that holds less than the prompt; the
    first one, too, so that what a marked layer refuses is refused before any layer has changed."""
    layouts = [running.resident(number)[0] for number in range(running.depth)]
    if all(layout.whole for layout in layouts):
        return
    tail, shift = _tail(running), _shift(running)
    places: dict[tuple[int, int], Resident] = {}
    for number, (own, layout) in enumerate(zip(running.layouts, layouts, strict=True)):
        layer = cache.layers[number] if number < len(cache.layers) else None
        if (number and layout.whole) or layer is None:
            continue
        if isinstance(layer, LinearAttentionLayer):  # it has read what it ran on, and no more
            cache.layers[number] = PrunedState(layer)
            continue
        if layer.keys is None:
            continue
        keys, values = layer.keys, layer.values
        logical = layout.slot.shape[1]
        key = (id(layout), id(own) if own.closed else 0)
        if key not in places:  # layers with one layout share what is said of it
            closed = _closed(running, number) if own.closed else None
            places[key] = Resident(layout.place, logical, layout.valid, tail, shift, closed)
        prompt = places[key]
        if layer.is_sliding:
            prompt, keys, values = _in_window(own, layout, prompt, keys, values)
        elif layout is not own:
            keys, values = _pick(own, keys, layout), _pick(own, values, layout)
        cache.layers[number] = pruned_layer(layer, keys, values, prompt)


def _pick(own: Layout, states: Tensor, layout: Layout) -> Tensor:
    """Gather keys or values ``[B, H, S, d]`` from one layout into another."""
    return _take(states, own.slot.gather(1, layout.index))


def _take(states: Tensor, slots: Tensor) -> Tensor:
    """Slots ``[B, n]`` of keys or values ``[B, H, S, d]``: ``[B, H, n, d]``."""
    source = slots.to(states.device)[:, None, :, None]
    return states.gather(2, source.expand(-1, states.shape[1], -1, states.shape[3]))


def _in_window(
    own: Layout, layout: Layout, prompt: Resident, keys: Tensor, values: Tensor
) -> tuple[Resident, Tensor, Tensor]:
    """What a sliding layer holds, which evicted all but the last slots as it ran: those of them
    that are in ``layout``, as left-padded rows."""
    held = keys.shape[2]
    if layout is own:
        return prompt.from_slot(prompt.length - held), keys, values
    place = own.place[:, -held:]
    stays = layout.present.gather(1, own.index[:, -held:])
    if own.valid is not None:
        stays &= own.valid[:, -held:]
    counts = stays.sum(1)
    size = int(counts.max())
    order = torch.sort(stays.byte(), dim=1, stable=True).indices[:, held - size :]
    valid = torch.arange(size, device=counts.device) >= (size - counts)[:, None]
    only = None if bool(valid.all()) else valid
    prompt = replace(prompt, place=place.gather(1, order), valid=only)
    return prompt, _take(keys, order), _take(values, order)


def _tail(running: Prefill) -> int:
    """Tokens at the end of every row that stand behind its last visual token (0 where a row ends
    in padding: the pruned row does not)."""
    if not running.fills:
        return 0
    last = int(torch.cat([image.positions for image in running.images]).max())
    return running.entry.present.shape[1] - 1 - last


def _shift(running: Prefill) -> Tensor | None:
    return _fewer(running, running.visual()) if running.compact else None


def _closed(running: Prefill, layer: int) -> Tensor:
    """How far positions of what comes are from those that ``layer`` goes by."""
    return _fewer(running, running.counts[layer])


def _fewer(running: Prefill, now: list[int]) -> Tensor:
    device = running.entry.index.device
    dropped = [then - left for then, left in zip(running.original, now, strict=True)]
    return torch.tensor(dropped, device=device)
