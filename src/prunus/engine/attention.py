"""Attention as the model computes it: rows taken, and edits made, where the model calls its own
attention function, with the queries, keys, values, mask and rules that this function is given."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from prunus.errors import PrunusError
from prunus.signals.attention import row_weights

Attention = Callable[..., tuple[Tensor, Any]]

_EAGER = (
    "eager_attention_forward",
    "simple_eager_attention_forward",
    "text_eager_attention_forward",
)
#: Added to the logit of a key that is not seen. Finite: rows that see nothing are padding, and must
#: not become NaN, which would reach gradients.
HIDDEN = torch.finfo(torch.float32).min
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}


@dataclass(frozen=True)
class Given:
    """What one attention function was given: query ``[B, H, Q, d]``, key ``[B, H_kv, S, d]``, value
    ``[B, H_kv, S, d_v]``, the mask in the form of its backend, and the rest by name."""

    module: Any
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Any
    rest: dict[str, Any]
    backend: str

    @property
    def causal(self) -> bool:
        """Whether no mask means that no query sees what comes behind it."""
        return self.backend != "eager" and is_causal(self.module, self.rest)

    @property
    def plain(self) -> bool:
        """Whether the weights are a softmax of scaled logits, each key seen or not, and no more."""
        special = ("softcap", "s_aux", "position_bias")
        added = isinstance(self.mask, Tensor) and self.mask.is_floating_point()
        return not added and all(self.rest.get(name) is None for name in special)

    @property
    def scaling(self) -> float:
        """Factor on the logits."""
        given = self.rest.get("scaling")
        return float(self.query.shape[-1] ** -0.5 if given is None else given)

    def weights(self, index: Tensor) -> Tensor:
        """Float32 ``[B, H, R, S]``: weights of the query rows ``index`` (int64 ``[B, R]``), as the
        model's function makes them."""
        rows = rows_at(self.query, index)
        visible, softcap, sinks = self.rules(index)
        return row_weights(rows, self.key, visible, self.scaling, softcap, sinks)

    def rules(self, index: Tensor) -> tuple[Tensor, float | None, Tensor | None]:
        """What :func:`~prunus.signals.attention.row_weights` must know of the rows ``index``:
        ``visible``, ``softcap`` and ``sinks``."""
        visible = self._bias(index)
        more = self.rest.get("position_bias")
        if more is not None:
            visible = visible + rows_at(more, index).float()
        return visible, self.rest.get("softcap"), self.rest.get("s_aux")

    def _bias(self, index: Tensor) -> Tensor:
        """Float32 ``[B, 1|H, R, S]``, added to the logits of the rows ``index``."""
        mask, size = self.mask, self.key.shape[2]
        if isinstance(mask, Tensor) and mask.ndim == 4:
            rows = rows_at(mask, index.to(mask.device))[..., :size]
            if rows.dtype == torch.bool:
                return additive(rows)
            return rows.float().masked_fill(rows <= torch.finfo(rows.dtype).min, HIDDEN)
        index = index.to(self.query.device)
        slots = torch.arange(size, device=index.device)
        see = torch.ones(*index.shape, size, dtype=torch.bool, device=index.device)
        if self.causal:
            at = index[..., None] + size - self.query.shape[2]
            see &= slots <= at
            window = self.rest.get("sliding_window")
            if window is not None and "flash" in self.backend:
                see &= slots > at - window
        if isinstance(mask, Tensor):  # 2-D, as FlashAttention takes it
            see &= mask[:, None, :size].bool().to(see.device)
        return additive(see[:, None])

    def run(self) -> tuple[Tensor, Any]:
        """The model's own attention function, unchanged."""
        own = own_attention(self.backend, self.module)
        return own(self.module, self.query, self.key, self.value, self.mask, **self.rest)


def additive(see: Tensor) -> Tensor:
    """Bool "may see" as float32 to be added to logits."""
    zeros = torch.zeros(see.shape, dtype=torch.float32, device=see.device)
    return zeros.masked_fill(~see, HIDDEN)


def rows_at(states: Tensor, index: Tensor) -> Tensor:
    """Rows ``index [B, R]`` of the third dimension of ``[B|1, h, Q, n]``: ``[B, h, R, n]``."""
    batch, count = index.shape
    states = states.expand(batch, *states.shape[1:])
    at = index[:, None, :, None].expand(batch, states.shape[1], count, states.shape[3])
    return states.gather(2, at)


def is_causal(module: Any, rest: dict[str, Any]) -> bool:
    """What transformers goes by where there is no mask."""
    told = rest.get("is_causal")
    return bool(getattr(module, "is_causal", True) if told is None else told)


_proved: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


def is_proved(given: Given) -> bool:
    """Whether :func:`check` passed for this module and backend before."""
    return given.backend in _proved.get(given.module, ())


def check(given: Given, at: Tensor, output: Tensor) -> None:
    """Our row of weights, times the values, must be what the model's function gave there. Once per
    module: the numbers are read from the device.

    Args:
        at: int64 ``[B]``, slots of the row; output: ``[B, Q, H, d_v]``.

    Raises:
        PrunusError: this attention has rules that are not known here.
    """
    if given.rest.get("dropout", 0.0) > 0:
        return  # nothing to compare with; the first prompt without dropout will tell
    with torch.autocast(given.query.device.type, enabled=False):
        weights = given.weights(at.to(given.query.device)[:, None])[:, :, 0]  # [B, H, S]
        grouped = weights.unflatten(1, (given.value.shape[1], -1))
        found = torch.matmul(grouped, given.value.float()).flatten(1, 2)
    batch = torch.arange(len(at), device=output.device)
    wanted = output[batch, at.to(output.device)].float()
    if not bool(wanted.isfinite().all()):
        raise PrunusError(
            f"{type(given.module).__name__} gave NaN or infinity at the last prompt token: there "
            "is nothing to choose by: look for what makes the model overflow (float16? a mask in "
            "which a token sees nothing?)"
        )
    # Under autocast only some of them are of half precision.
    tolerance = max(_TOLERANCE.get(one.dtype, 5e-2) for one in (given.query, given.value, output))
    if found.shape != wanted.shape or not bool(
        (found - wanted).norm() <= tolerance * wanted.norm() + 1e-12
    ):
        raise PrunusError(
            f"{type(given.module).__name__} has attention rules of its own, which prunus cannot "
            "follow: choose a method (or variant) that neither looks at attention nor edits it"
        )
    _proved.setdefault(given.module, set()).add(given.backend)


def own_attention(backend: str, module: nn.Module) -> Attention:
    """The attention function that ``module`` would have called by itself."""
    if backend == "eager":
        return _found(module, _EAGER)
    registry = next(_homes(module, ("ALL_ATTENTION_FUNCTIONS",)), ALL_ATTENTION_FUNCTIONS)
    function: Attention = registry[str(backend)]
    return function


def _found(module: nn.Module, names: tuple[str, ...]) -> Attention:
    function: Attention | None = next(_homes(module, names), None)
    if function is None:
        raise PrunusError(
            f"{type(module).__name__} has no eager attention function of its own: choose a method "
            "(or variant) that neither looks at attention nor edits it, or another attention "
            "implementation"
        )
    return function


def _homes(module: nn.Module, names: tuple[str, ...]) -> Iterator[Any]:
    """What stands under ``names`` where the class of ``module``, or a base of it, is defined."""
    for kind in type(module).__mro__:
        home = sys.modules.get(kind.__module__)
        for name in names:
            if hasattr(home, name):
                yield getattr(home, name)
