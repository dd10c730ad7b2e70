"""The model's own eager attention, watched and edited: what rows and edits must equal.

The engine is not used. For the time of a ``with`` block the function ``eager_attention_forward``
in the Python module of a decoder is replaced by one that calls it, so softcaps, sinks, windows,
clipping and scales are the model's own; configurations and masks stay untouched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from prunus import Edit
from tests.support.decoders import layers_of

_NAME = "eager_attention_forward"


@dataclass(frozen=True)
class Attended:
    """One call of the eager function in decoder ``layer``: weights ``[B, H, Q, K]`` (without the
    column of a sink), values ``[B, H, K, d]`` repeated for all query heads, output
    ``[B, H, Q, d]`` = weights @ values."""

    layer: int
    weights: Tensor
    values: Tensor
    output: Tensor
    without: Callable[[Tensor], Tensor]  # output where lost keys (bool [B, Q, K]) are not there


@contextmanager
def attention(model: Any, change: Callable[[Attended], Tensor]) -> Iterator[None]:
    """``model`` (a LLaVA running eager attention) with ``change`` called for every attention of its
    decoder; it returns the output ``[B, H, Q, d]`` with which the model goes on."""
    language_model = model.get_decoder()
    assert model.config.get_text_config()._attn_implementation == "eager"
    number = {
        id(inner): layer
        for layer, block in enumerate(layers_of(model))
        for inner in block.modules()
    }
    homes = {
        cls.__module__
        for module in language_model.modules()
        for cls in type(module).__mro__
        if hasattr(sys.modules[cls.__module__], _NAME)
    }
    with ExitStack() as stack:
        for home in homes:
            own = getattr(sys.modules[home], _NAME)
            stack.enter_context(mock.patch(f"{home}.{_NAME}", _wrapped(own, number, change)))
        yield


def watched(model: Any, call: dict[str, Any]) -> tuple[Any, dict[int, list[Attended]]]:
    """Output of ``model(**call)`` and every attention in it, by layer."""
    seen: dict[int, list[Attended]] = {}

    def note(one: Attended) -> Tensor:
        seen.setdefault(one.layer, []).append(one)
        return one.output

    with torch.no_grad(), attention(model, note):
        output = model(**call, use_cache=False, output_attentions=True)
    return output, seen


def _wrapped(
    own: Callable[..., tuple[Tensor, Tensor]],
    number: dict[int, int],
    change: Callable[[Attended], Tensor],
) -> Callable[..., tuple[Tensor, Tensor]]:
    def run(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        output, weights = own(module, query, key, value, attention_mask, **kwargs)
        values = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
        heads = output.transpose(1, 2)

        def without(lost: Tensor) -> Tensor:
            unseen = (attention_mask < -1e30) | lost[:, None]  # none of it, not even as the least
            hidden = attention_mask.masked_fill(unseen, float("-inf"))
            return own(module, query, key, value, hidden, **kwargs)[0].transpose(1, 2)

        true = _true_weights(weights, values, heads)
        changed = change(Attended(number[id(module)], true, values, heads, without))
        return changed.transpose(1, 2).contiguous(), weights

    return run


def _true_weights(weights: Tensor, values: Tensor, output: Tensor) -> Tensor:
    """What ``output`` is made of. A map may leave out one factor per row (a sink that scales the
    output instead of standing in the softmax).

    Raises:
        AssertionError: it differs by more than such a factor.
    """
    made = weights @ values
    if (made - output).abs().max() > 1e-6 * output.abs().max():
        factor = (made * output).sum(-1, keepdim=True) / made.square().sum(-1, keepdim=True)
        weights = weights * factor
    difference = (weights @ values - output).abs().max() / output.abs().max()
    assert difference < 1e-5, f"the map does not give the output: {difference:.1e}"
    return weights


@contextmanager
def edited(
    model: Any,
    edits: Mapping[int, Edit],
    visual: Mapping[int, list[list[int]]],
    valid: Tensor,
    last: int,
) -> Iterator[None]:
    """``model`` with ``edits`` (by layer), made query by query on its own weights.

    Args:
        visual: by layer, for each row, positions of the visual tokens that are there, in order.
        valid: bool ``[B, L]``; the prompt ends at position ``last``.
    """

    def change(one: Attended) -> Tensor:
        if one.layer not in edits:
            return one.output
        return edited_output(one, edits[one.layer], visual[one.layer], valid, last)

    with attention(model, change):
        yield


def edited_output(
    one: Attended, edit: Edit, visual: list[list[int]], valid: Tensor, last: int
) -> Tensor:
    """``[B, H, Q, d]``: the output of one attention under ``edit``."""
    weights, output = one.weights.clone(), one.output.clone()
    lost = torch.zeros(len(visual), *weights.shape[-2:], dtype=torch.bool)
    before: list[tuple[int, int]] = []
    for row, own in enumerate(visual):
        for query in range(weights.shape[2]):
            is_text = query not in own
            if not own or query < own[0] or not valid[row, query] or (is_text and query > last):
                continue
            kind = edit.text if is_text else edit.visual
            if kind == "keep":
                continue
            gone = own[: len(own) // 2] if kind == "half" else own
            if kind == "merge":
                sink = own[edit.sink] if own[edit.sink] <= query else own[0]
                mass = weights[row, :, query, own].sum(-1)
                weights[row, :, query, own] = 0
                weights[row, :, query, sink] = mass
            elif edit.renormalise:
                lost[row, query, gone] = True
                before.append((row, query))
                continue
            else:
                weights[row, :, query, gone] = 0
            output[row, :, query] = torch.einsum(
                "hk,hkd->hd", weights[row, :, query], one.values[row]
            )
    if before:
        again = one.without(lost).nan_to_num(0)  # a query that sees nothing gets nothing
        for row, query in before:
            output[row, :, query] = again[row, :, query]
    return output
