"""The oracle for cuts that close positions up, merge or reorder tokens inside the decoder: the
unmodified layers, called one after the other on a list of tokens.

Nothing here uses the engine. One sample at a time, without padding and without a cache; masks are
floats, attention is eager, and rotary tables are made by the model's own module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from prunus import TraceEntry
from tests.support.oracles.decoder import decoder_of
from tests.support.oracles.masked import Visible, positions


@dataclass
class Line:
    """One sample where it enters ``layer``.

    Attributes:
        states: ``[S, D]``; tokens: for each of them the position in the prompt it had at first.
        where: ``[.., L]``, the model's own position ids; closed: they count 0, 1, 2, ... instead.
        maps: by layer that ran, attention ``[H, S, S]`` and the tokens it is over.
        entered: by layer that ran, the states that entered it, for those tokens.
        unseen: by layer, tokens that those from ``prompt`` on do not see.
        holders: places of visual inputs, cells or not.
    """

    model: Any
    states: Tensor
    tokens: list[int]
    where: Tensor
    prompt: int
    layer: int = 0
    closed: bool = False
    maps: dict[int, tuple[Tensor, list[int]]] = field(default_factory=dict)
    entered: dict[int, Tensor] = field(default_factory=dict)
    unseen: Mapping[int, set[int]] = field(default_factory=dict)
    holders: frozenset[int] = frozenset()

    def slots(self, tokens: list[int]) -> list[int]:
        """Where ``tokens`` are."""
        return [self.tokens.index(token) for token in tokens]

    def go_on(self, tokens: list[int], states: Tensor | None = None) -> None:
        """Go on with ``tokens`` in that order (with other ``states``)."""
        self.states = self.states[self.slots(tokens)] if states is None else states
        self.tokens = tokens

    def rope(self) -> tuple[Tensor, Tensor]:
        """Rotary tables."""
        ids = torch.arange(len(self.tokens)) if self.closed else self.where[..., self.tokens]
        rotary = self.model.get_decoder().rotary_emb
        cos, sin = rotary(self.states[None], ids[..., None, :])
        return cos, sin

    def attention(self) -> tuple[Tensor, Tensor]:
        """Output ``[S, D]`` and map ``[H, S, S]`` of this layer's attention, without going on."""
        block, size = self.model.get_decoder().layers[self.layer], len(self.tokens)
        mask = torch.full((size, size), torch.finfo(self.states.dtype).min)
        for query, one in enumerate(self.tokens):
            for key in range(query + 1):
                late = one >= self.prompt
                if not (late and self.tokens[key] in self.unseen.get(self.layer, ())):
                    mask[query, key] = 0.0
        output, maps = block.self_attn(
            hidden_states=block.input_layernorm(self.states[None]),
            attention_mask=mask[None, None].to(self.states.dtype),
            position_embeddings=self.rope(),
        )
        return output[0], maps[0]

    def step(self) -> None:
        """Through this layer, to the next. One without attention is called as it is: it reads what
        is left as a sequence."""
        block = self.model.get_decoder().layers[self.layer]
        if not hasattr(block, "self_attn"):
            self.entered[self.layer] = self.states
            self.states = block(self.states[None], position_embeddings=self.rope())[0]
            self.layer += 1
            return
        output, maps = self.attention()
        self.maps[self.layer] = maps, list(self.tokens)
        self.entered[self.layer] = self.states
        states = self.states + output
        mixed = block.mlp(block.post_attention_layernorm(states)[None])
        self.states = states + (mixed[0] if isinstance(mixed, tuple) else mixed)[0]
        self.layer += 1


def has_states(model: Any) -> bool:
    """Whether some decoder layer has a state instead of attention."""
    return not all(hasattr(layer, "self_attn") for layer in decoder_of(model).layers)


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """``model`` with eager attention."""
    before = model.config.get_text_config()._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def entering(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What enters the unmodified language model, ``[B, L, D]``."""
    seen: list[Tensor] = []
    handle = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    try:
        with torch.no_grad():
            model(**inputs, use_cache=False)
    finally:
        handle.remove()
    return seen[0]


def walk(
    model: Any,
    inputs: dict[str, Tensor],
    row: int,
    cut: Callable[[Line], None],
    valid: Tensor | None = None,
    prompt: int | None = None,
    unseen: Mapping[int, set[int]] | None = None,
    embeds: Tensor | None = None,
) -> tuple[Line, Tensor]:
    """One row of a batch through all layers; ``cut`` is called at the input of each. Tokens are
    named by their place in the (padded) row; those from ``prompt`` on came after it. ``embeds``:
    what enters the language model, if that is known.

    Returns:
        what is left at the end, and its logits ``[S, V]``.
    """
    mask = inputs["attention_mask"] if valid is None else valid
    prompt = mask.shape[1] if prompt is None else prompt
    tokens = mask[row].bool().nonzero().flatten().tolist()
    where = positions(model, {**inputs, "attention_mask": mask})[..., row, :]
    with torch.no_grad(), eager(model):
        embeds = entering(model, inputs) if embeds is None else embeds
        states = embeds[row, tokens]
        ids = [getattr(model.config, f"{kind}_token_id", None) for kind in ("image", "video")]
        holders = {n for n, own in enumerate(inputs["input_ids"][row].tolist()) if own in ids}
        line = Line(
            model, states, tokens, where, prompt, unseen=unseen or {}, holders=frozenset(holders)
        )
        for _ in model.get_decoder().layers:
            cut(line)
            line.step()
        logits: Tensor = model.lm_head(model.get_decoder().norm(line.states))
    return line, logits


def replayed(
    model: Any, inputs: dict[str, Tensor], visible: Visible, trace: list[TraceEntry]
) -> Tensor:
    """Logits ``[B, L, V]`` with everything done that ``trace`` tells of; zeros where no token is
    left."""
    assert all(one.place != "attention" for one in trace)
    # What was made new before the language model enters it so: it is not to be made twice.
    trace = [replace(one, mix=None) if one.layer is None else one for one in trace]
    rows, embeds = [], entering(model, inputs)
    for row, spots in enumerate(visible.spots):
        unseen: dict[int, set[int]] = {}
        for entry in (one for one in trace if one.trim_cache):
            for layer in range(entry.layer or 0):
                unseen.setdefault(layer, set()).update(_gone(entry, row, spots))

        def cut(line: Line, row: int = row, spots: list[list[int]] = spots) -> None:
            for entry in trace:
                if (entry.layer or 0) == line.layer:
                    apply(line, entry, row, spots)

        line, found = walk(model, inputs, row, cut, visible.valid, visible.prompt, unseen, embeds)
        logits = found.new_zeros(visible.valid.shape[1], found.shape[1])
        logits[line.tokens] = found
        rows.append(logits)
    return torch.stack(rows)


def apply(line: Line, entry: TraceEntry, row: int, spots: list[list[int]]) -> None:
    """One entry of a trace: new states first, of what is still there; then what goes; then the
    order in which each image is read."""
    states = line.states.clone()
    for image, places in enumerate(spots):
        if entry.mix is None:
            break
        sums: dict[int, Tensor] = {}
        parts = [part.tolist() for part in entry.mix[row][image]]
        for into, of, weight in zip(*parts, strict=True):
            own = weight * line.states[line.tokens.index(places[of])]
            sums[into] = sums[into] + own if into in sums else own
        for into, made in sums.items():
            states[line.tokens.index(places[into])] = made
    gone = _gone(entry, row, spots)
    left = [slot for slot, token in enumerate(line.tokens) if token not in gone]
    line.go_on([line.tokens[slot] for slot in left], states[left])
    for image, places in enumerate(spots):
        if entry.order is not None:
            own = [slot for slot, token in enumerate(line.tokens) if token in places]
            read, tokens = iter(entry.order[row][image].tolist()), list(line.tokens)
            for slot in own:
                tokens[slot] = places[next(read)]
            line.go_on(tokens)
    line.closed = line.closed or entry.compact


def _gone(entry: TraceEntry, row: int, spots: list[list[int]]) -> set[int]:
    return {
        place
        for image, places in enumerate(spots)
        for number, place in enumerate(places)
        if number not in set(entry.kept[row][image].tolist())
    }
