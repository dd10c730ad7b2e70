"""The unmodified model on the prompts of a check, and how far logits may be from its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.checking.hidden import Hidden, NoOracle
from prunus.checking.oracle import masked
from prunus.checking.probe import Inputs, Probe
from prunus.families import Family, family_of

#: Largest error as a share of the largest logit. Double and single precision: what rounding leaves
#: of an exact method. Others: so many units of their rounding, or twice the model's own spread if
#: that is more, but never more than the second number of units.
EXACT = {torch.float64: 1e-8, torch.float32: 1e-4}
UNITS = (8, 32)


@dataclass(frozen=True)
class Dense:
    """What the unmodified model gives.

    Attributes:
        logits: ``[B, L, V]`` of the batch.
        held: for each prompt alone the tokens in each layer's cache, and what length it says.
        scale: the largest logit. spread: see :class:`~prunus.checking.report.CheckReport`.
        repeatable: whether running twice gives the same bits.
        padded: how far rows of the batch are from the rows alone, without any pruning.
    """

    logits: Tensor
    held: Sequence[Sequence[tuple[int, int] | None]]
    scale: float
    spread: float
    repeatable: bool
    padded: float

    @property
    def tolerance(self) -> float:
        """Largest difference that is no error, as a share of :attr:`scale`."""
        dtype = self.logits.dtype
        if dtype in EXACT:
            return EXACT[dtype]
        unit = torch.finfo(dtype).eps
        return min(max(UNITS[0] * unit, 2 * self.spread), UNITS[1] * unit)


def run_dense(model: Any, family: Family, probe: Probe) -> Dense:
    """Run the unmodified model; the first run of all is thrown away (it may set things up)."""
    run(model, probe.batch)
    logits = run(model, probe.batch).logits
    again = run(model, probe.batch).logits
    scale = float(logits[probe.valid].float().abs().max())
    alone = [run(model, row, use_cache=True) for row in probe.rows]
    padded = max(
        largest(own.logits[0], logits[row, probe.valid[row]]) / scale
        for row, own in enumerate(alone)
    )
    nothing = Hidden.of([], probe.spots, probe.valid, len(family.layers))
    spread = 0.0
    try:
        with masked(family, nothing):
            spread = largest(run(model, probe.batch).logits[probe.valid], logits[probe.valid])
    except NoOracle:
        pass  # each comparison that needs one says so
    held = [lengths(cache_of(own), len(family.layers)) for own in alone]
    return Dense(logits, held, scale, spread / scale, torch.equal(logits, again), padded)


def run(model: Any, inputs: Inputs, **options: Any) -> Any:
    """The model's output for one call of ``forward``, without gradients. Tokens behind padding are
    counted as ``generate`` does, where the model does not find positions itself (M-RoPE)."""
    mask = inputs["attention_mask"]
    # Rows alone as well: some models begin at 1, and some methods go by positions.
    if "position_ids" not in inputs and not hasattr(family_of(model).core, "get_rope_index"):
        options["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        return model(**inputs, **options)


def largest(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; infinite where one is NaN."""
    if not a.numel():
        return 0.0
    found = float((a.float() - b.to(a.device).float()).abs().max())
    return math.inf if math.isnan(found) else found


def cache_of(output: Any) -> Any:
    """The KV cache in a model's output, whatever this transformers calls it; or None."""
    for name in ("cache", "past_key_values"):
        if output.get(name) is not None:
            return output[name]
    return None


def lengths(cache: Any, depth: int) -> list[tuple[int, int] | None]:
    """For each layer the tokens it holds and the length it says; None where it holds no keys."""
    found: list[tuple[int, int] | None] = []
    for number in range(depth):
        layer = cache.layers[number] if number < len(cache.layers) else None
        keys = getattr(layer, "keys", None)
        if isinstance(keys, Tensor) and keys.ndim == 4:
            found.append((keys.shape[-2], int(cache.get_seq_length(number))))
        else:
            found.append(None)
    return found
