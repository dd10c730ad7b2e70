"""The built-in model and questions in the place of a paper's: the whole way, in seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from prunus.compare.identity import model_identity, plain
from prunus.errors import PrunusError
from prunus.evaluate.cells import DENSE, Cell
from prunus.evaluate.output import versions
from prunus.evaluate.runner import Evaluation
from prunus.inference.named import build_methods
from prunus.loading import load
from prunus.reproduce.judge import Measured
from prunus.reproduce.recipe import Arm, Small
from prunus.tasks.sets import EvalSet, load_builtin_set

#: Figures of an evaluation by the column that they stand in, and what they are multiplied with.
_FIGURES = {
    "tokens": ("average", 1.0),
    "FLOPs %": ("llm_flops_ratio", 100.0),
    "KV %": ("kv_ratio", 100.0),
}
ACCURACY = "accuracy %"
#: What these columns are.
BUILT_IN = {
    "tokens": "visual tokens per decoder layer, their mean",
    "FLOPs %": "of the language model, as run.report() counts them, of the dense one's",
    "KV %": "bytes of the cache behind the prompt, of the dense model's",
}


class BuiltIn:
    """Asks the first ``limit`` built-in questions (all of them for None) of a built-in model."""

    def __init__(self, small: Small, limit: int | None, dtype: str, device: str) -> None:
        self._small, self._limit = small, limit
        self._dtype, self._device = dtype, device

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return load(self._small.model, dtype=self._dtype, device=self._device)

    @cached_property
    def _questions(self) -> EvalSet:
        return load_builtin_set(self._small.data).first(self._limit)

    @cached_property
    def _model_identity(self) -> dict[str, Any]:
        return model_identity(*self._loaded)

    def jobs(self, arm: Arm) -> Sequence[str]:
        return [self._small.data]

    def identity(self, arm: Arm, job: str) -> dict[str, Any]:
        methods = build_methods(arm.method, arm.keep, [])
        return {
            "judge": "built-in questions",
            "model": self._model_identity,
            "set": job,
            "questions": len(self._questions.queries),
            "methods": [plain(one) for one in methods or ()],
            "budget": arm.meaning,
            "versions": versions(),
        }

    def measure(self, arm: Arm, job: str) -> Measured:
        methods = build_methods(arm.method, arm.keep, [])
        cell = Cell(DENSE) if methods is None else Cell(arm.words, method=methods)
        evaluation = Evaluation(*self._loaded, self._questions, [cell], budget=arm.meaning)
        evaluation.run()
        if why := evaluation.refused.get(cell.key):
            raise PrunusError(why)
        _, [outcome] = evaluation.so_far()
        values = {ACCURACY: 100 * float(outcome.right.mean())}
        for column, (name, factor) in _FIGURES.items():
            if not math.isnan(value := outcome.figures.get(name, math.nan)):
                values[column] = factor * value
        facts = {"questions": len(outcome.answers), "seconds": round(outcome.seconds, 3)}
        return Measured(values, facts)
