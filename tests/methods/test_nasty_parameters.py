"""Whatever a parameter is given: it works, or one error of prunus says why not."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunus
from prunus import PrunusError, PrunusTypeError
from prunus.inference.named import build_methods
from prunus.method import Method, methods
from prunus.selector.config import SelectorConfig, TrainSettings
from prunus.train.options import Options
from tests.support.models import Case

NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 3, 10**30, -(10**30), 10**400, 10**5000, 5.0, 0.5, -0.5, 1.5,
    1e300, 1e-320, -0.0, math.nan, math.inf, -math.inf, "", "abc", "5", "0.5", "true", "auto",
    "\ud800", "a\0b", "~nobody/x", "x" * 300, b"5", [], (), [1], (1, 2), [1, 1], [1.5], ["a"],
    [True], [None], [[1]], [10**30], {}, {"a": 1}, {1: 2}, {1}, set(), range(3), range(10**30),
    np.int64(2), np.float32(0.5), np.float64("nan"), np.bool_(True), np.array([1, 2]),
    np.array(1), np.array([0.5]), np.array([], dtype=int), torch.tensor(1), torch.tensor([1, 2]),
    torch.tensor(math.nan), Decimal("0.5"), Fraction(1, 3), Fraction(10**400), 1j, object(), int,
    Path("nowhere"), lambda: 1, "\n", "\uff11", iter([1]), float, slice(1),
]  # fmt: skip
FIELDS = [
    (name, field.name)
    for name, method in methods().items()
    if method.__module__.startswith("prunus.")
    for field in dataclasses.fields(method)  # type: ignore[arg-type]
    if field.init
]


def tried(action: Any, what: str) -> Any:
    """What ``action`` returns, or None where it ends in an error of prunus."""
    try:
        return action()
    except PrunusError as error:
        message = str(error)
        assert message and "\n" not in message, what
        message.encode("utf-8")
        return None


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_of_every_method(name: str, field: str, llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    made = 0
    usual = getattr(methods()[name](), field)
    for value in [usual, *NASTY]:
        what = f"{name}.{field}={type(value).__name__}"
        method = tried(lambda value=value: methods()[name](**{field: value}), what)
        if method is None:
            continue
        made += 1

        def run(method: Method = method) -> None:
            with prunus.prune(llava.model, method) as run, torch.no_grad():
                llava.model(**inputs)
                str(run.report())

        tried(run, what)
    assert made
    plain = llava.model(**inputs).logits
    assert plain.isfinite().all()  # nothing is left on the model


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_on_the_command_line(name: str, field: str) -> None:
    texts = [value for value in NASTY if isinstance(value, str)]
    texts += [
        "nan",
        "inf",
        "-inf",
        "1e400",
        "9" * 5000,
        "5.0",
        "-1",
        "none",
        "1,2",
        "1,",
        ",",
        "a,b",
    ]
    texts += ["[1]", "{}", "[[[1]]]", "[" * 100_000, '{"0": 1}', '"a"', "[1e400]", "null"]
    for text in texts:
        tried(
            lambda text=text: build_methods(name, None, [f"{field}={text}"]), f"{field}={text[:9]}"
        )


@pytest.mark.parametrize("owner", [SelectorConfig, TrainSettings, Options])
def test_every_setting_of_training(owner: Any) -> None:
    needed = {"visual_width": 8, "text_width": 8} if owner is SelectorConfig else {}
    for field in dataclasses.fields(owner):
        for value in NASTY:
            tried(
                lambda field=field, value=value: owner(**{**needed, field.name: value}), field.name
            )


@pytest.mark.parametrize(
    ("method", "params", "kind", "words"),
    [
        ("clse", {"layers": "abc"}, PrunusTypeError, "layers='abc' is no"),
        ("clse", {"reference": 5.0}, PrunusTypeError, "reference=5.0 is no integer"),
        ("clse", {"reference": True}, PrunusTypeError, "reference=True is no integer"),
        ("clse", {"invert": 1}, PrunusTypeError, "invert=1 is no boolean"),
        ("clse", {"invert": "false"}, PrunusTypeError, "invert='false' is no boolean"),
        ("clse", {"variant": 3}, PrunusTypeError, "variant=3"),
        ("clse", {"layers": [1.5]}, PrunusTypeError, "layers=1.5 is no integer"),
        ("clse", {"cutoff": "0.1"}, PrunusTypeError, "cutoff='0.1' is no number"),
        ("clse", {"keep": "5"}, PrunusTypeError, "keep='5' is not a number"),
        ("random", {"seed": 10**400}, PrunusError, "seed=a number of 1329 bits"),
        ("random", {"layer": 10**30}, PrunusError, "layer=1000000000.*64 bits"),
        ("random", {"seed": "1"}, PrunusTypeError, "seed='1' is no integer"),
        ("evoprune", {"growth": math.inf}, PrunusError, "growth=inf: it must be"),
        ("evoprune", {"tau": math.nan}, PrunusError, "tau=nan"),
        ("visipruner", {"sink": "0"}, PrunusTypeError, "sink='0' is no integer"),
        ("visipruner", {"stages": "deep"}, PrunusTypeError, "stages='deep' is no list"),
        ("visipruner", {"calibration": 3}, PrunusTypeError, "calibration=3"),
        ("fixed", {"indices": [[5]]}, PrunusError, "indices"),
        ("fixed", {"attention": {"0": 1}}, PrunusTypeError, "attention="),
        ("fixed", {"pairs": 5}, PrunusTypeError, "pairs=5"),
    ],
)  # fmt: skip
def test_messages(
    llava: Case, method: str, params: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        prunus.prune(llava.model, method, **params)


def test_numbers_of_numpy_are_numbers() -> None:
    method = prunus.CLSE(keep=np.int64(5), layers=np.array([2]), cutoff=np.float32(0.25))
    assert (method.keep, method.layers, method.cutoff) == (5, (2,), 0.25)
    assert type(method.keep) is int and type(method.cutoff) is float
    assert prunus.Random(seed=np.uint8(7)).seed == 7
    assert prunus.Knockout(layers=[0, 1]).layers == (0, 1)
    assert prunus.EvoPrune(proportional=np.bool_(True)).proportional is True


def test_annotations_that_say_more_are_left_to_their_class() -> None:
    @dataclasses.dataclass(frozen=True)
    class Own(Method):
        keep: int | float = 0.5
        weights: torch.Tensor | None = None
        words: dict[str, int] = dataclasses.field(default_factory=dict)

    own = Own(weights=torch.ones(2), words={"a": 1})
    assert own.weights is not None and own.words == {"a": 1}
    with pytest.raises(PrunusError, match="keep=0 keeps nothing"):
        Own(keep=0)
    with pytest.raises(PrunusTypeError, match="words=3"):
        Own(words=3)  # type: ignore[arg-type]
