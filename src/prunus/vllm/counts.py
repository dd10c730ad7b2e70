"""How many tokens an image will be in the prompt: known before anything is seen of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from prunus.errors import PrunusError
from prunus.families import Family, model_types
from prunus.grid import AnyGrid
from prunus.vllm.setting import Setting


class Counts:
    """Counts tokens by the configuration of a model alone, in the process that lays out prompts."""

    def __init__(self, config: Any) -> None:
        self.family = family_by(config)
        self._methods, self._budget = Setting.of(config).counting(
            int(self.family.text_config.num_hidden_layers)
        )

    def left(self, grid: AnyGrid) -> int:
        """Placeholders of an input on ``grid`` that are left: tokens, and marks, which all stay."""
        marks = len(self.family.cells(grid)) - grid.size
        count = grid.size
        for method in self._methods:
            own = self._budget.counts(method, grid.pieces, grid.size)
            if own is not None:
                times = 1 if method.unit == "image" else grid.pieces
                count = min(count, times * own[-1])
        return count + marks

    def grid(self, kind: str, call: Mapping[str, Any]) -> AnyGrid:
        """The grid of the one input of that ``kind`` that ``call`` brings, arguments as the model's
        own forward takes them."""
        found = self.family.grids_of(call).get(kind) or []
        if len(found) != 1:
            raise PrunusError(f"expected the grid of one {kind}, and {len(found)} are there")
        return found[0]


def family_by(config: Any, top: Any = None) -> Family:
    """The adapter of the family of the model with this ``config``; without the model ``top`` it
    knows about sizes only.

    Raises:
        PrunusError: no family has such models.
    """
    known = model_types()
    if config.model_type not in known:
        raise PrunusError(
            f"{config.model_type!r} is no model that prunus supports: supported are "
            f"{', '.join(sorted(known))}"
        )
    kind = known[config.model_type]
    return kind.of(SimpleNamespace(config=config, model=None) if top is None else top)
