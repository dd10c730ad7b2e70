"""Columns that follow from sizes and token counts, in the way of the paper that printed them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from prunus.bench.shapes import shape_of
from prunus.compare.identity import plain
from prunus.cost import prefill_flops
from prunus.cost.kv import kv_bytes
from prunus.cost.published import baseline_attention, plain_flops
from prunus.errors import PrunusError
from prunus.evaluate.output import versions
from prunus.inference.named import build_methods
from prunus.method import Method
from prunus.method.budget import Budget
from prunus.reproduce.judge import Measured
from prunus.reproduce.recipe import Arm, Recipe

_HALF = 2  # bytes of a number in half precision
_MIB = 2**20
#: Models of which the tower is counted too, by the shape that ``prunus bench`` builds.
_SHAPES = {"LLaVA-1.5-7B": "llava-1.5-7b"}


@dataclass(frozen=True)
class Counts:
    """Visual tokens of one input: those that ``run`` through each decoder layer, and those that the
    cache of each holds behind the prompt."""

    run: tuple[int, ...]
    cached: tuple[int, ...]


def counts(methods: Sequence[Method], arm: Arm, depth: int, tokens: int) -> Counts:
    """What ``methods`` leave of ``tokens`` visual tokens.

    Raises:
        PrunusError: a method that finds its own count, or a budget that cannot be reached.
    """
    run, cached = [tokens] * depth, [tokens] * depth
    if not methods:
        return Counts(tuple(run), tuple(cached))
    counted = all(getattr(one, "keep", None) is not None for one in methods)
    budget = Budget(methods, depth, arm.meaning if counted else "nominal")
    for method in methods:
        left = budget.counts(method, 1, tokens)
        if left is None:
            raise PrunusError(
                f"{method.name} finds its own count, which depends on the image: nothing follows "
                "from sizes alone"
            )
        cuts = method.cuts(depth)
        layers = [cut.layer or 0 for cut in cuts] or [0]  # in the tower: before all layers
        trims = [cut.trim_cache for cut in cuts] or [False]
        for layer, count, trim in zip(layers, left, trims, strict=True):
            for at in range(depth):
                if at >= layer:
                    run[at] = min(run[at], count)
                if at >= layer or trim:
                    cached[at] = min(cached[at], count)
    return Counts(tuple(run), tuple(cached))


class Formula:
    """Counts the columns ``names`` of ``recipe``, for its ``text`` tokens."""

    def __init__(self, recipe: Recipe, names: Sequence[str]) -> None:
        self._recipe, self._names = recipe, tuple(names)

    def jobs(self, arm: Arm) -> Sequence[str]:
        return ["counted"]

    def identity(self, arm: Arm, job: str) -> dict[str, Any]:
        methods = build_methods(arm.method, arm.keep, [])
        return {
            "judge": "formulas",
            "columns": list(self._names),
            "decoder": asdict(self._recipe.model.decoder),
            "tokens": self._recipe.model.tokens,
            "text": self._recipe.text,
            "methods": [plain(one) for one in methods or ()],
            "budget": arm.meaning,
            "versions": versions(),
        }

    def measure(self, arm: Arm, job: str) -> Measured:
        shape, tokens = self._recipe.model.decoder, self._recipe.model.tokens or 0
        methods = build_methods(arm.method, arm.keep, []) or ()
        found = counts(methods, arm, shape.layers, tokens)
        values = {name: self._column(name)(found) for name in self._names}
        average = sum(found.run) / shape.layers
        return Measured(values, {"average": round(average, 1), "text": self._recipe.text})

    def _column(self, name: str) -> Callable[[Counts], float]:
        known: dict[str, Callable[[Counts], float]] = {
            "FLOPs %": self._flops_share,
            "KV MB": self._cache,
            "visual attention saved %": self._attention,
            "TFLOPs": partial(self._tera, self._recipe.model.name),
        }
        return known[name]

    @property
    def _text(self) -> int:
        return self._recipe.text or 0

    def _flops_share(self, found: Counts) -> float:
        shape, tokens = self._recipe.model.decoder, self._recipe.model.tokens or 0
        dense = plain_flops(shape, [tokens + self._text] * shape.layers)
        return 100 * plain_flops(shape, [n + self._text for n in found.run]) / dense

    def _cache(self, found: Counts) -> float:
        lengths = [n + self._text for n in found.cached]
        return kv_bytes(self._recipe.model.decoder, lengths, _HALF) / _MIB

    def _attention(self, found: Counts) -> float:
        tokens = self._recipe.model.tokens or 0
        saved = baseline_attention(
            self._recipe.model.decoder, tokens, list(found.run), text=self._text
        )
        return 100 * saved

    def _tera(self, model: str, found: Counts) -> float:
        config = shape_of(_SHAPES[model]).config(1.0)
        return prefill_flops(config, [n + self._text for n in found.run])["total"] / 1e12


def why_not_counted(recipe: Recipe, name: str) -> str:
    """Why the formula column ``name`` is not among :func:`formula_columns`."""
    if name == "TFLOPs" and recipe.text is None:
        return (
            "follow from how many visual tokens each sample kept, and not from sizes alone: "
            "run.report()['published'] has them for a prompt that was run"
        )
    return "how many text tokens there were is not said, and it depends on them"


def formula_columns(recipe: Recipe) -> list[str]:
    """Columns of the table that are counted here: none where the text tokens are not known."""
    if recipe.text is None:
        return []
    names = ["FLOPs %", "KV MB", "visual attention saved %"]
    if recipe.model.name in _SHAPES:
        names.append("TFLOPs")
    return [name for name in recipe.table["benchmarks"] if name in names]
