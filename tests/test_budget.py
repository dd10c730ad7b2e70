"""What ``keep`` means."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import prunus
from prunus import CLSE, EvoPrune, Fixed, Knockout, Random, VisiPruner, methods
from prunus.errors import PrunusBudgetError, PrunusError
from prunus.families import family_of
from prunus.inference.inputs import placed, process
from prunus.inference.prompts import render
from prunus.method.budget import Budget, check_keep, resolve_keep
from prunus.pruners.duet import Duet
from prunus.pruners.fastv import FastV
from prunus.pruners.pyramiddrop import PyramidDrop
from prunus.pruners.tome import ToMe
from prunus.tasks.sets import builtin_set_for, load_builtin_set
from tests.support.models import case_of


@pytest.mark.parametrize("original", [1, 2, 9, 36, 576, 729, 1296])
def test_shares_are_rounded_down_and_never_by_floating_point(original: int) -> None:
    for parts in range(1, 40):
        for taken in range(1, parts + 1):
            exact = max(1, Fraction(taken, parts) * original // 1)
            assert resolve_keep(taken / parts, original) == exact


def test_at_least_one_at_most_all() -> None:
    assert resolve_keep(1e-9, 576) == 1
    assert resolve_keep(0.001, 576) == 1
    assert resolve_keep(1.0, 576) == 576
    assert resolve_keep(1, 576) == 1
    assert resolve_keep(576, 576) == resolve_keep(577, 576) == resolve_keep(10**12, 576) == 576
    assert resolve_keep(0.999, 10) == 9  # down, not to the nearest
    assert resolve_keep(0.55, 10) == 5


def test_one_is_a_token_and_one_point_zero_is_everything() -> None:
    assert check_keep(1) == 1 and isinstance(check_keep(1), int)
    assert check_keep(1.0) == 1.0 and isinstance(check_keep(1.0), float)
    assert isinstance(check_keep(np.int64(7)), int) and isinstance(
        check_keep(np.float32(0.5)), float
    )


@pytest.mark.parametrize("keep", [0, -1, 0.0, -0.5, 1.0000001, 2.5, float("nan"), float("inf")])
def test_out_of_range(keep: Any) -> None:
    with pytest.raises(ValueError, match="keep="):
        check_keep(keep)


@pytest.mark.parametrize("keep", [True, False, "0.5", None, [1], 1j])
def test_no_number(keep: Any) -> None:
    with pytest.raises(TypeError, match="is not a number"):
        check_keep(keep)


def counted() -> list[type[prunus.Method]]:
    """Every method that takes ``keep``."""
    found = []
    for cls in methods().values():
        if "keep" in {field.name for field in dataclasses.fields(cls)}:  # type: ignore[arg-type]
            found.append(cls)
    return found


def average(method: Any, counts: tuple[int, ...], size: int, depth: int) -> float:
    """Visual tokens per layer, from where the method cuts alone."""
    layers = [cut.layer or 0 for cut in method.cuts(depth)] or [0]
    there, total = size, 0
    for layer in range(depth):
        for at, count in zip(layers, counts, strict=True):
            there = min(there, count) if at == layer else there
        total += there
    return total / depth


def settings_of(cls: type[prunus.Method]) -> list[dict[str, Any]]:
    """Its default and each of its presets, without their ``keep``."""
    own = [{}, *cls.presets.values()]
    return [{name: value for name, value in one.items() if name != "keep"} for one in own]


@pytest.mark.parametrize("cls", counted(), ids=lambda cls: cls.name)
def test_a_true_average_is_within_half_a_token_or_refused_with_its_least(cls: Any) -> None:
    keeps: tuple[float, ...] = (1 / 3, 2 / 9, 1 / 9, 1, 17, 100, 0.9, 1.0)
    refused = 0
    for depth, size, keep, params in itertools.product(
        (12, 32), (576, 144, 100, 23), keeps, settings_of(cls)
    ):
        if {"selector", "r"} & set(params):
            continue
        try:
            method = cls(**{**params, "keep": keep})
        except PrunusError:
            continue  # a preset that takes no keep
        asked = resolve_keep(keep, size)
        try:
            counts = Budget([method], depth, "true").counts(method, 1, size)
        except PrunusBudgetError as error:
            least = float(str(error).split("the least is ")[1].split(",")[0])
            refused += 1
            assert asked < least - 0.44  # as the message rounds
            up = dataclasses.replace(method, keep=min(size, int(least + 0.5 + 0.999)))
            assert abs(_reached(up, depth, size) - up.keep) <= 0.5
            own = method.counts(1e-6, size, depth)  # no stage can have less than its own least
            assert abs(average(method, floored(cls, own, size), size, depth) - least) < 0.06
            continue
        assert counts is not None
        assert abs(average(method, counts, size, depth) - asked) <= 0.5 + 1e-9, (params, counts)
        assert all(later <= before for before, later in itertools.pairwise((size, *counts)))
        assert cls.leaves or min(counts) >= 1
    first = [] if cls is Fixed else cls().cuts(12)[:1]
    early = all((cut.layer or 0) < 1 for cut in first)
    assert early or refused  # what first cuts in the decoder cannot average one token


def floored(cls: Any, counts: Any, size: int) -> tuple[int, ...]:
    """Rounded down; at least one, but where vision leaves."""
    return tuple(
        0 if cls.leaves and count == 0 else max(1, min(size, int(count + 1e-6))) for count in counts
    )


def _reached(method: Any, depth: int, size: int) -> float:
    counts = Budget([method], depth, "true").counts(method, 1, size)
    assert counts is not None
    return average(method, counts, size, depth)


@pytest.mark.parametrize("cls", counted(), ids=lambda cls: cls.name)
def test_nominal_counts_are_the_methods_own(cls: Any) -> None:
    if cls.averages:
        pytest.skip("its keep is an average by its own definition")
    for depth, size, keep in itertools.product((12, 32), (576, 23), (1 / 3, 1 / 9, 17)):
        method = cls(keep=keep)
        own = method.counts(resolve_keep(keep, size), size, depth)
        floor = floored(cls, own, size)
        assert Budget([method], depth).counts(method, 1, size) == floor
        assert Budget([method], depth).asked(method, 1, size) == resolve_keep(keep, size)


def test_published_schedules_are_nominal() -> None:
    clse = CLSE(keep=192, variant="released")
    assert Budget([clse], 32).counts(clse, 1, 576) == (330, 210, 62)
    true = Budget([clse], 32, "true").counts(clse, 1, 576)
    assert true is not None and true != (330, 210, 62)
    assert abs(average(clse, true, 576, 32) - 192) <= 0.5
    assert abs(average(clse, (330, 210, 62), 576, 32) - 208.1) < 0.05


def test_an_average_is_one_whatever_the_budget_means() -> None:
    method = PyramidDrop(keep=192)
    nominal = Budget([method], 32).counts(method, 1, 576)
    assert nominal == Budget([method], 32, "true").counts(method, 1, 576)
    assert nominal is not None and abs(average(method, nominal, 576, 32) - 192) <= 0.5
    with pytest.raises(
        PrunusBudgetError, match=r"the least is 144\.8.*ask for 145 or more"
    ) as told:
        Budget([few := PyramidDrop(keep=64)], 32).counts(few, 1, 576)
    assert "nominal" not in str(told.value)  # which would not help
    free = PyramidDrop()
    assert Budget([free], 32).counts(free, 1, 576) == (288, 144, 72)
    assert Budget([free], 32).asked(free, 1, 576) == (576 + 288 + 144 + 72) / 4


def test_several_methods_reach_the_average_together() -> None:
    first, last = EvoPrune(keep=0.5), CLSE(keep=1 / 9)
    budget = Budget([first, last], 12, "true")
    assert budget.counts(first, 1, 576) == (288,)
    assert budget.counts(last, 1, 576) == (44,)  # (288 + 11 * 44) / 12 = 64.3
    many = CLSE(keep=0.8)
    with pytest.raises(PrunusBudgetError, match=r"the most is 288\.0.*ask for 288 or less"):
        Budget([first, many], 12, "true").counts(many, 1, 576)
    every = CLSE(keep=1.0)  # everything that is there
    assert Budget([first, every], 12, "true").counts(every, 1, 576) == (576,)


def test_the_last_is_whom_data_meets_last_however_they_are_named() -> None:
    late, early = Random(keep=64, layer=6), CLSE(keep=0.5)
    for order in ([late, early], [early, late]):
        budget = Budget(order, 12, "true")
        assert budget.last is late
        assert budget.counts(early, 1, 576) == (288,)
        with pytest.raises(
            PrunusBudgetError, match=r"the least is 168\.5"
        ):  # (576 + 5 * 288 + 6) / 12
            budget.counts(late, 1, 576)
    more, knockout = Random(keep=180, layer=6), Knockout()
    budget = Budget([early, more, knockout], 12, "true")  # which takes no token away
    assert budget.last is more
    assert budget.counts(more, 1, 576) == (24,)  # (576 + 5 * 288 + 6 * 24) / 12 = 180


def test_frames_of_a_video_and_whole_videos() -> None:
    frames, size = 4, 4 * 36
    each, whole = EvoPrune(keep=9), Random(keep=20, layer=1)
    budget = Budget([each, whole], 12, "true")
    assert budget.counts(each, frames, size) == (9,) and budget.asked(each, frames, size) == 36
    assert budget.counts(whole, frames, size) == (19,)  # 36 in layer 0: (36 + 11 * 19) / 12 = 20.4
    assert Budget([each], 12, "true").counts(each, frames, size) == (9,)
    assert budget.asked(whole, frames, size) == 20


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([VisiPruner()], "visipruner has no keep"),
        ([PyramidDrop()], "pyramiddrop has no keep"),
        ([ToMe(r=3)], "tome has no keep"),
        ([VisiPruner(), CLSE(keep=64, layers=11)], "how many tokens visipruner leaves is not kn"),
        ([ToMe(r=3), CLSE(keep=64)], "how many tokens tome leaves is not known"),
    ],
)
def test_a_count_that_nobody_knows_cannot_be_true(chosen: Any, message: str) -> None:
    with pytest.raises(PrunusError, match=message):
        Budget(chosen, 12, "true")


def test_another_meaning_is_refused() -> None:
    model = case_of("llava-clip").model
    with pytest.raises(PrunusError, match="budget='x': choose nominal or true"):
        prunus.prune(model, "clse", budget="x")  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Odd(prunus.Method):
    """One that gives what it likes."""

    given: Any = ()
    keep: float = 0.5

    def cuts(self, depth: int) -> list[prunus.Cut]:
        return [prunus.Cut(1), prunus.Cut(3)]

    def counts(self, keep: float | None, original: int, depth: int) -> tuple[float, ...]:
        return self.given


@pytest.mark.parametrize("given", [(), (3.0,), (3.0, float("nan")), (1.0, 2.0, 3.0)])
def test_counts_that_make_no_sense_are_refused(given: tuple[float, ...]) -> None:
    _Odd.name = "odd"
    method = _Odd(given)
    with pytest.raises(PrunusError, match="odd.counts returned .* for each of its 2 stages"):
        Budget([method], 12).counts(method, 1, 100)


@pytest.mark.parametrize("name", ["tiny-llava", "tiny-qwen"])
def test_a_report_says_that_the_average_was_reached(name: str) -> None:
    """A shorter version of the table that runs all methods."""
    model, processor = prunus.load(name)
    data = load_builtin_set(builtin_set_for(name)).first(1)
    text = render(processor, data.queries[0].text, ["image"])
    pictures = [data.seen(data.queries[0].image)]
    inputs = placed(process(processor, text, pictures), model.device, model.dtype)
    chosen: list[Any] = [
        CLSE(keep=2 / 9),
        CLSE(keep=1 / 3, variant="released"),
        PyramidDrop(keep=1 / 3),
        FastV(keep=1 / 3),
        [EvoPrune(keep=0.5), CLSE(keep=1 / 9)],
    ]
    for method in chosen:
        with torch.no_grad(), prunus.prune(model, method, budget="true") as run:
            model(**inputs)
        tokens = run.report()["tokens"]
        assert abs(tokens["average"] - tokens["nominal"]) <= 0.5, method
    few = FastV(keep=1, layer=family_of(model).depth // 2)
    with (
        torch.no_grad(),
        prunus.prune(model, few, budget="true") as run,
        pytest.raises(PrunusBudgetError, match="the least is"),
    ):
        model(**inputs)


def test_vision_leaves_where_a_method_says_so_and_is_nowhere_else_rounded_away() -> None:
    """A count of 0 is none, whatever the budget means; what rounds to 0 is one."""
    method = Duet(keep=192)
    assert Budget([method], 32).counts(method, 1, 576) == (307, 153, 0)
    true = Budget([method], 32, "true").counts(method, 1, 576)
    assert true is not None and true[2] == 0  # (307, 153, 1) is nearer, but vision would stay
    assert abs(average(method, true, 576, 32) - 192) <= 0.5
    small = Duet(keep=1)
    for meaning in ("nominal", "true"):  # (1, 1, 1) averages 1, but vision would stay
        assert Budget([small], 32, meaning).counts(small, 1, 576) == (1, 1, 0)  # type: ignore[arg-type]
    more = Duet(keep=400)  # above what is published it goes towards all
    counts = Budget([more], 32, "true").counts(more, 1, 576)
    assert counts is not None and counts[2] > 0
    assert abs(average(more, counts, 576, 32) - 400) <= 0.5
    every = Duet(keep=1.0)
    assert Budget([every], 32).counts(every, 1, 576) == (576, 576, 576)
