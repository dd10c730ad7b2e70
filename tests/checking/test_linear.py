"""The check on layers with linear attention, where no mask is an oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, Fixed, Knockout, Method, Random
from prunus.checking.hidden import Hidden
from prunus.checking.oracle import masked
from prunus.checking.probe import from_rows
from prunus.engine.gathered import Gathered
from prunus.engine.layout import Layout
from prunus.families import family_of
from tests.checking.prompts import failed, prompts_of
from tests.support.decoder_list import LINEAR
from tests.support.llava import Prompts
from tests.support.models import Case
from tests.support.oracles import layered
from tests.support.oracles.masked import visibility
from tests.support.proof.bench import DEPTH, gap, model_of

known = [decoder for decoder in LINEAR if decoder.known]
METHODS: list[Method] = [
    Random(keep=4, layer=None),
    CLSE(keep=5, layers=(2,)),
    Fixed([0, 3, 4], layer=1, trim_cache=True),
    Knockout(layers=(0, 3), mask="both", renormalise=True, forget=True),
]


@pytest.fixture(params=known[:2], ids=lambda decoder: decoder.name)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param.name, model_of(request.param), Prompts(0))


def checked(case: Case, methods: list[Method]) -> Any:
    return prunus.check(case.model, None, methods, prompts=prompts_of(case, 1, 2))


def test_what_is_right_passes(case: Case) -> None:
    report = checked(case, METHODS)
    assert report.ok, str(report)
    status = [cell.status for row in report.rows[:2] for cell in row.cells.values()]
    assert set(status) == {"ok"}  # nothing skipped


def test_padding_that_is_read_shows(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gathered, "padding", lambda *args: None)
    assert failed(checked(case, METHODS[:1])) >= {"batch", "prefill", "decode"}


def test_a_token_that_is_blank_instead_of_gone_shows(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still a step of the state."""
    take = Layout.take

    def blank(self: Layout, states: Tensor, new: Layout) -> Tensor:
        found = take(self, states, new).clone()
        found[:, 1] = 0.0
        return found

    monkeypatch.setattr(Layout, "take", blank)
    assert failed(checked(case, METHODS[:1])) >= {"prefill", "decode"}


def test_the_oracle_is_the_layers_one_by_one(case: Case) -> None:
    """Without the engine: two ways to the same logits."""
    rows = prompts_of(case, 1, 2)
    family = family_of(case.model)
    probe = from_rows(family, rows, 2)
    with prunus.prune(case.model, [Random(keep=9, layer=1), Random(keep=4, layer=2)]) as run:
        with torch.no_grad():
            case.model(**probe.batch)
    hidden = Hidden.of(run.trace, probe.spots, probe.valid, DEPTH)
    with masked(family, hidden), torch.no_grad():
        found = case.model(**probe.batch).logits
    length = probe.valid.shape[1]
    spots = [[spot.tolist() for spot in own] for own in probe.spots]
    seen = visibility(run.trace, spots, probe.valid.long(), DEPTH, length)
    expected = layered.replayed(case.model, probe.batch, seen, run.trace)
    assert gap(found, expected, hidden.alive) < 1e-4
