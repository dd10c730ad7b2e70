"""What cannot be right is refused by what it is, before a layer ran."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from prunus.engine.masks import FLASH, check_backend
from prunus.engine.plan import Plan
from prunus.errors import PromptEndWarning, PrunusError
from prunus.families import Family

_GATHERED = {"attention_mask", "position_embeddings", "position_ids"}
_PACKED = ("cu_seq_lens", "max_length_")
# One number for every token of a static cache; no decoder that is supported reads it.
_IGNORED = {"cache_position"}


def check_call(config: Any, call: Mapping[str, Any], backend: str) -> None:
    """Raise PrunusError for a call of the language model (with ``config``) that pruning cannot
    follow."""
    wanted = call.get("output_attentions")
    if wanted or (wanted is None and getattr(config, "output_attentions", False)):
        raise PrunusError(
            "output_attentions is not supported while pruning: maps of pruned layers have other "
            "shapes; run.trace holds what was kept, and the scores"
        )
    check_backend(backend)


def check_layers(family: Family, plan: Plan, backend: str) -> None:
    """Raise PrunusError if a prompt cannot run through the decoder layers as they are now."""
    if len(family.layers) != plan.depth:
        raise PrunusError(
            f"the model runs {len(family.layers)} decoder layers now, but had {plan.depth} when "
            "prune() was called: change the number of layers before (early exit is not supported)"
        )
    if backend in FLASH and plan.removes:
        for number, layer in enumerate(DynamicCache(config=family.text_config).layers):
            if _windowed(family, number, layer):
                raise PrunusError(
                    f"decoder layer {number} attends in a sliding window, which FlashAttention "
                    "counts in tokens that are there, not in positions of the prompt: call "
                    "model.set_attn_implementation('sdpa') to prune"
                )


def check_length(family: Family, plan: Plan, length: int) -> None:
    """Raise PrunusError for a prompt of ``length`` tokens that is too long for layers which count
    the tokens that are there."""
    longest = family.longest
    if longest is not None and length > longest and plan.cuts:
        raise PrunusError(
            f"a prompt of {length} tokens is too long to prune this language model: from position "
            f"{longest} on, layers without rotary embedding scale their queries by a temperature "
            "that they count from the tokens that are there (attn_temperature_tuning), not from "
            f"positions. Give at most {longest} tokens"
        )


def check_windows(family: Family, plan: Plan) -> None:
    """Raise PrunusError if positions are to be closed up before a layer with a sliding window (or
    chunks), which is counted in positions of the prompt."""
    first = min(
        number for number, steps in plan.decoder.items() if any(s.cut.compact for s in steps)
    )
    for number, layer in enumerate(DynamicCache(config=family.text_config).layers):
        if number >= first and _windowed(family, number, layer):
            raise PrunusError(
                f"{plan.name} closes positions up at decoder layer {first}, and layer {number} "
                "attends in a sliding window, which counts positions of the whole prompt: choose a "
                "method (or variant) that keeps positions"
            )


def _windowed(family: Family, number: int, layer: Any) -> bool:
    """Whether decoder layer ``number``, with this cache ``layer``, attends in a sliding window."""
    own = (getattr(a, "sliding_window", None) for a in family.attention(number))
    return getattr(layer, "is_sliding", False) or any(own)


def check_layer_call(
    call: Mapping[str, Any], states: str, length: int, along: Collection[str] = ()
) -> None:
    """Raise PrunusError if a decoder layer is given something by token that is not gathered, as
    ``states`` and what is ``along`` are."""
    for name, value in call.items():
        if name.startswith(_PACKED) and value is not None:
            raise PrunusError(
                f"the decoder layers are given {name!r}, lengths of several prompts in one row, "
                "which do not hold behind a cut: leave it out, or give one prompt per row"
            )
        known = name == states or name in {*_GATHERED, *_IGNORED, *along}
        if not known and isinstance(value, Tensor) and length in value.shape[:3]:
            raise PrunusError(
                f"the decoder layers are given {name!r} of shape {tuple(value.shape)}, one entry "
                "for every token of the prompt: prunus does not know how to prune that"
            )


def check_packing(
    core: Mapping[str, Any],
    call: Mapping[str, Any],
    holders: Mapping[str, Tensor],
    valid: Tensor,
) -> None:
    """Raise PrunusError where several prompts stand in one row: positions that start anew in the
    text. The last token belongs to one of them only."""
    ids = core.get("position_ids")
    if ids is None:
        ids = call.get("position_ids")
    if ids is None:
        return
    while ids.ndim > 2:
        ids = ids[0]
    text = valid & ~torch.stack([places.to(valid.device) for places in holders.values()]).any(0)
    ids = ids.to(valid.device).expand_as(text)
    highest = torch.where(text, ids, -1).cummax(1).values
    before = torch.nn.functional.pad(highest[:, :-1], (1, 0), value=-1)
    if bool((text & (ids < before)).any()):
        raise PrunusError(
            "position_ids start anew within a row: several prompts are packed there, and only one "
            "of them ends with the row's last token, which this method looks at. Give one prompt "
            "per row, or choose a query-independent method"
        )


def check_replay(family: Family, edits: bool) -> None:
    """Raise PrunusError where hooks would run again in backward. Before 5.23, transformers
    checkpointed a layer's ``__call__``: its hooks would run a second time during backward, when
    the prompt they belong to is over. Its attention's still do."""
    layer = family.layers[0]
    on = getattr(layer, "gradient_checkpointing", False) and layer.training
    checkpointing = on and torch.is_grad_enabled()
    if checkpointing and edits:
        raise PrunusError(
            "gradient checkpointing is not supported while attention is edited, which its second "
            "pass would not repeat: call model.gradient_checkpointing_disable()"
        )
    if checkpointing and "__call__" in GradientCheckpointingLayer.__dict__:
        raise PrunusError(
            "gradient checkpointing while pruning needs transformers 5.23 or newer: upgrade, or "
            "call model.gradient_checkpointing_disable()"
        )


def check_candidates(logits_to_keep: Any) -> None:
    """Raise PrunusError for what assisted decoding does: it appends its guesses to the prompt and
    asks for several logits."""
    if isinstance(logits_to_keep, int) and logits_to_keep > 1:
        raise PrunusError(
            f"logits_to_keep={logits_to_keep} on a new prompt means candidate tokens stand behind "
            "it (assisted decoding): a method that looks at the last prompt token refuses that; "
            "use logits_to_keep=0 or 1, give labels, tell run.prompt_ends(...), or choose a "
            "query-independent method"
        )


def check_end(top: nn.Module, plan: Plan, said: bool) -> bool:
    """A method is about to look at the last prompt token, and nobody told where the prompt ends.

    Args:
        said: a warning was given before.

    Returns:
        True: it was given now, or before.

    Raises:
        PrunusError: in training, where an answer stands behind the prompt.
    """
    if top.training and torch.is_grad_enabled():
        raise PrunusError(
            f"{plan.name} looks at the last prompt token, but in training an answer stands behind "
            "the prompt, and nobody said where it begins: pass labels to the model, or call "
            "run.prompt_ends(labels=...) before it where the labels are taken away (label "
            "smoothing, losses of your own)"
        )
    if not said:
        warnings.warn(
            f"prunus: {plan.name} looks at the last prompt token, and takes the last token of each "
            "row for it. If an answer stands there, pass labels or call run.prompt_ends(...) "
            "before; run.prompt_ends() says that nothing does",
            PromptEndWarning,
            stacklevel=2,
        )
    return True


def hooks_not_seen() -> bool:
    """Whether an attention function that is reached without the language model's hook can only
    mean that the hook was skipped (and not that backward runs a layer again)."""
    in_backward: bool = torch._C._current_graph_task_id() != -1
    return not in_backward
