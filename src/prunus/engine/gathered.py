"""What a model made for a whole prompt (masks, rotary tables), for the tokens that are left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunus.engine.layout import Layout
from prunus.engine.masks import Slots, flat_mask, gather_mask
from prunus.errors import PrunusError

_KEPT = 8  # sets of arguments; models have one for each type of layer


class Gathered:
    """Everything is gathered once for a layout: models have masks and rotary tables of several
    kinds, and hand each to many layers.

    Args:
        entry: the layout of the whole prompt.
    """

    def __init__(self, entry: Layout) -> None:
        self._entry = entry
        self._made: dict[tuple[Layout, int, object], tuple[Any, Any]] = {}
        self._calls: dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]] = {}

    def mask(self, given: Any, layout: Layout, backend: str, causal: bool, states: Tensor) -> Any:
        """The mask ``given`` for the whole prompt, for the tokens of ``layout``."""
        return self._once(
            given, layout, causal, lambda: _mask(given, layout, backend, causal, states)
        )

    def padding(self, given: Any, layout: Layout) -> Tensor | None:
        """Bool ``[B, S]``, which tokens of ``layout`` a layer without keys is to read: the mask
        ``given`` for the whole prompt (2-D, or None), without what only fills rows up. None: all.

        Raises:
            PrunusError: a mask of another form.
        """
        found: Tensor | None = self._once(
            given, layout, "padding", lambda: flat_mask(given, layout.place, layout.valid)
        )
        return found

    def rope(self, given: Any, layout: Layout, by_place: bool) -> Any:
        """Rotary tables of the whole prompt, for the tokens of ``layout``, or for their places.

        Raises:
            PrunusError: none are given, or they are of a form that is not known.
        """
        return self._once(given, layout, None, lambda: self._rope(given, layout, by_place))

    def positions(self, ids: Tensor, layout: Layout, by_place: bool) -> Tensor:
        """Position ids ``[..., B|1, L]`` of the whole prompt, for the tokens of ``layout``."""
        found: Tensor = self._once(
            ids, layout, None, lambda: self._entry.rows(ids, layout, -1, by_place)
        )
        return found

    def call(self, layout: Layout, key: tuple[Any, ...]) -> dict[str, Any] | None:
        """All arguments of a layer as they were kept for ``layout`` under ``key``, if they were."""
        found = self._calls.get((layout, *key))
        return None if found is None else found[1]

    def keep(
        self, layout: Layout, key: tuple[Any, ...], given: dict[str, Any], made: dict[str, Any]
    ) -> None:
        """Keep the arguments that were ``made`` of those that were ``given``, whose ids are in
        ``key`` (and stay taken)."""
        if len(self._calls) >= _KEPT or any(own[0] is not layout for own in self._calls):
            self._calls.clear()
        self._calls[(layout, *key)] = (given, made)

    def forget(self) -> None:
        """Let go of everything."""
        self._made.clear()
        self._calls.clear()

    def _rope(self, given: Any, layout: Layout, by_place: bool) -> Any:
        tables = given if isinstance(given, tuple) else (given,)
        length = self._entry.size
        if not all(isinstance(t, Tensor) and t.ndim > 2 and t.shape[-2] == length for t in tables):
            raise PrunusError(
                "the decoder layers are not given rotary tables with a row for every token, so "
                "their positions cannot be kept when tokens go: this language model is not "
                "supported"
            )
        picked = tuple(self._entry.rows(one, layout, -2, by_place) for one in tables)
        return picked if isinstance(given, tuple) else picked[0]

    def _once(self, given: Any, layout: Layout, kind: object, make: Callable[[], Any]) -> Any:
        key = (layout, id(given), kind)
        if key not in self._made:
            self._made = {own: made for own, made in self._made.items() if own[0] is layout}
            self._made[key] = (given, make())  # given, so that its id stays taken
        return self._made[key][1]


def _mask(given: Any, layout: Layout, backend: str, causal: bool, states: Tensor) -> Any:
    slots = Slots(layout.place, layout.place, layout.valid, square=True)
    found = gather_mask(given, slots, backend, causal, states)
    if layout.valid is not None or not isinstance(found, Tensor):
        return found
    if found.ndim == 2:  # FlashAttention's: padding is gone, often nothing is hidden any more
        return None if bool(found.all()) else found
    if found.dtype == torch.bool:
        size = layout.size  # padding is gone: often this is what the kernel does by itself
        plain = torch.ones(size, size, dtype=torch.bool, device=found.device).tril()
        if causal and torch.equal(found, plain.expand_as(found)):
            return None
    return found
