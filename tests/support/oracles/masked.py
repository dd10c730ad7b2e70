"""The oracle for methods that drop tokens: all tokens run, dropped ones are merely not seen.

Nothing here uses the engine. The unmodified layers run on the full-length sequence, each with an
explicit mask visibility[layer][row, query, key].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunus import TraceEntry
from tests.support.oracles.decoder import decoder_of

#: Models whose masks are more than causal (windows, images that see themselves in both directions):
#: what a trace hides is taken out of the masks that the unmodified model makes.
OWN_MASKS = {
    "gemma3",
    "gemma4",
    "llama4",
    "paligemma",
    "aya_vision",
    "cohere2_vision",
    "molmo2",
}


class Visible(list[Tensor]):
    """Masks by layer; ``spots``, ``valid``, ``prompt`` and ``last`` (position of the last prompt
    token) are what they were made from; ``unseen``, by layer, bool ``[B, L, L]``, the pairs that
    the trace hides."""

    unseen: list[Tensor]
    spots: list[list[list[int]]]
    valid: Tensor
    prompt: int
    last: int


def visibility(
    trace: list[TraceEntry],
    spots: list[list[list[int]]],
    valid: Tensor,
    depth: int,
    prompt: int,
    last: int | None = None,
) -> Visible:
    """Bool ``[B, L, L]`` per layer, L may reach beyond the ``prompt`` (generated tokens).

    ``trace`` names what was kept; ``spots`` where the tokens are; ``valid`` is ``[B, L]``.
    A token dropped at layer k is hidden from layer k on; if caches were trimmed, also from tokens
    behind the prompt in the layers before k. Layers that forget hide all visual tokens from those.
    ``last`` is the last prompt token where an answer within ``prompt`` follows it.
    """
    batch, length = valid.shape
    causal = torch.ones(length, length).tril().bool()
    visible = Visible()
    visible.spots, visible.valid, visible.prompt = spots, valid, prompt
    visible.last, visible.unseen = prompt - 1 if last is None else last, []
    for layer in range(depth):
        unseen = torch.zeros(batch, length, length, dtype=torch.bool)
        for row in range(batch):
            gone, gone_later = set(), set()
            for entry in trace:
                cut = -1 if entry.layer is None else entry.layer
                if layer in entry.forgets:
                    gone_later |= {p for places in spots[row] for p in places}
                for places, kept in zip(spots[row], entry.kept[row], strict=True):
                    survivors = set(kept.tolist())
                    dropped = {p for n, p in enumerate(places) if n not in survivors}
                    if layer >= cut:
                        gone |= dropped
                    elif entry.trim_cache:
                        gone_later |= dropped
            unseen[row, :, sorted(gone)] = True
            unseen[row, prompt:, sorted(gone_later)] = True
        visible.unseen.append(unseen)
        visible.append(causal & valid.bool()[:, None, :] & ~unseen | torch.eye(length).bool())
    return visible


def masked_logits(model: Any, inputs: dict[str, Tensor], visible: Any) -> Tensor:
    """Logits ``[B, L, V]`` of the unmodified model under the given masks (eager or SDPA), a list by
    layer; for a model of :data:`OWN_MASKS` :class:`Visible`."""
    implementation = model.config.get_text_config()._attn_implementation
    handles = []
    own = model.config.model_type in OWN_MASKS

    def use(mask: Tensor, unseen: Tensor | None) -> Any:
        def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            allowed, given = mask[:, None], kwargs["attention_mask"]
            if unseen is not None and given is not None:
                seen = given if given.dtype == torch.bool else given == 0
                allowed = seen & ~unseen[:, None] | torch.eye(seen.shape[-1]).bool()
            if implementation == "eager":
                zero = torch.zeros((), dtype=model.dtype)
                allowed = torch.where(allowed, zero, torch.finfo(model.dtype).min)
            return args, {**kwargs, "attention_mask": allowed}

        return hook

    for number, layer in enumerate(decoder_of(model).layers):
        if not hasattr(layer, "self_attn"):  # nothing may be dropped here
            continue
        hook = use(visible[number], visible.unseen[number] if own else None)
        handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        with torch.no_grad():
            call = {"position_ids": positions(model, inputs), **inputs}
            logits: Tensor = model(**call, use_cache=False).logits
        return logits
    finally:
        for handle in handles:
            handle.remove()


def positions(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Position ids ``[B, L]`` as generate() makes them (forward() alone counts padding as well), or
    ``[3, B, L]`` where the unmodified model gives visual tokens three each."""
    mask = inputs["attention_mask"]
    grids = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    core = getattr(model, "model", model)
    if hasattr(core, "get_rope_index") and any(name in inputs for name in grids):
        index = core.get_rope_index(
            inputs["input_ids"],
            inputs["mm_token_type_ids"],
            attention_mask=mask,
            **{name: inputs.get(name) for name in grids},
        )
        return index[0]  # type: ignore[no-any-return]
    return (mask.cumsum(1) - 1).clamp(min=0)


def continued(inputs: dict[str, Tensor], sequences: Tensor) -> dict[str, Tensor]:
    """The prompt with its generated tokens behind it, as one full-length input."""
    new = sequences.shape[1] - inputs["input_ids"].shape[1]
    ones = torch.ones(sequences.shape[0], new, dtype=torch.long)
    repeats = sequences.shape[0] // inputs["input_ids"].shape[0]
    mask = inputs["attention_mask"].repeat_interleave(repeats, 0)
    full = {**inputs, "input_ids": sequences, "attention_mask": torch.cat([mask, ones], dim=1)}
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in inputs:
            kinds = inputs[name].repeat_interleave(repeats, 0)
            # What is generated is text; where images have the type of text, types tell the prompt
            # from the answer.
            answer = int("pixel_values" in inputs and not bool(kinds.any()))
            full[name] = torch.cat([kinds, answer * ones.to(kinds.dtype)], dim=1)
    return full
