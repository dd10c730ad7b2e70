"""The invariants of tests/engine, for a family that is loaded from disk with its processor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prunus
from prunus import CLSE, Fixed, Knockout, Method, Random, Uniform
from tests.conftest import Case
from tests.engine import test_invariants
from tests.engine.test_invariants import PROMPTS
from tests.support.families import Kind
from tests.support.real_prompts import RealPrompts

INVARIANTS: dict[str, Callable[..., None]] = {
    name.removeprefix("test_"): function
    for name, function in vars(test_invariants).items()
    if name.startswith("test_")
}
#: One method for each thing that the engine does: cuts before the language model and in it, several
#: cuts with trimmed caches and looks at attention, edited attention.
METHODS: dict[str, Method] = {
    "uniform": Uniform(keep=5),
    "before": Random(keep=5, layer=None),
    "released": CLSE(keep=12, variant="released"),
    "late": Fixed([0, 3, 7, 8, 15], layer=3),
    "edits": Knockout(layers=(0, 2), mask="both", renormalise=True),
}


def load(kind: Kind, folder: Path) -> tuple[Any, Any]:
    """Model and processor, through the disk."""
    kind.save(folder)
    return prunus.load(folder)


def case_of(kind: Kind, loaded: tuple[Any, Any], signs: str) -> Case:
    """What the invariants take."""
    model, processor = loaded
    return Case(kind.name, model.eval(), RealPrompts(kind, model, processor, signs))  # type: ignore[arg-type]


def hold(name: str, case: Case, method: Method) -> None:
    """Raise AssertionError unless the invariant of this name holds."""
    check = INVARIANTS[name]
    before = case.model.config._attn_implementation
    for count in PROMPTS.values() if "inputs" in inspect.signature(check).parameters else ((),):
        given = {"inputs": case.prompts.rows(*count)} if count else {}
        try:
            check(case, method, **given)
        finally:
            case.model.zero_grad()
            case.model.gradient_checkpointing_disable()
            case.model.disable_input_require_grads()
            case.model.eval()
            case.model.set_attn_implementation(before)
