"""One decode step on the cache of a prompt, again and again, beside the plain model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from prunus.bench.bare import ROUNDING, Bare, NoBare, takes_of
from prunus.bench.clock import seconds
from prunus.bench.settings import pruned
from prunus.families import Family
from prunus.method import Method
from prunus.method.budget import Meaning

#: Steps in a round.
_EACH = 4


class Steps:
    """Decode steps of the model as it is pruned (``ours``), and of the unpruned model on a plain
    cache whose layers hold as many tokens (``plain``): what the engine costs where nothing is
    chosen any more. Each step is taken back, so that all see the same lengths.

    Raises:
        NoBare: the two compute something else.
    """

    def __init__(
        self,
        family: Family,
        inputs: Mapping[str, Tensor],
        methods: Sequence[Method],
        budget: Meaning,
        bare: Bare,
    ) -> None:
        self._top, self._methods, self._budget = family.top, list(methods), budget
        with self._block():
            out = self._top(**inputs, logits_to_keep=1, use_cache=True)
        self._cache, self._plain = out.past_key_values, bare.prefill()[1]
        self._token = torch.full_like(inputs["input_ids"][:, :1], 7)
        self._position, self._takes = bare.after(), takes_of(family.top)
        with self._block():
            ours = self._step(self._cache)
        theirs = self._step(self._plain)
        gap = float((ours - theirs).float().norm() / theirs.float().norm())
        if not gap < ROUNDING[theirs.dtype]:
            raise NoBare(f"a step on a plain cache computes something else (by {gap:.1g})")

    def ours(self) -> float:
        """Mean seconds of a step, pruned."""
        with self._block():
            return self._timed(self._cache)

    def plain(self) -> float:
        """Mean seconds of a step of the unpruned model."""
        return self._timed(self._plain)

    def _block(self) -> AbstractContextManager[object]:
        return pruned(self._top, self._methods, self._budget)

    def _timed(self, cache: Any) -> float:
        spent = 0.0
        for _ in range(_EACH):
            spent += seconds(lambda: self._forward(cache), self._top.device)
            cache.crop(-1)
        return spent / _EACH

    def _step(self, cache: Any) -> Tensor:
        found: Tensor = self._forward(cache).logits
        cache.crop(-1)
        return found

    def _forward(self, cache: Any) -> Any:
        return self._top(input_ids=self._token, position_ids=self._position, **{self._takes: cache})
