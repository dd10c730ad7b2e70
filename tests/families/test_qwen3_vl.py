"""Qwen3-VL, loaded from disk with its real processor."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Case
from tests.support.families import QWEN3_VL
from tests.support.family_invariants import INVARIANTS, METHODS, case_of, hold, load


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(QWEN3_VL, tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["I", "VI"])
def case(request: pytest.FixtureRequest, loaded: tuple[Any, Any]) -> Case:
    return case_of(QWEN3_VL, loaded, request.param)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INVARIANTS)
def test_invariants(name: str, method: str, case: Case) -> None:
    hold(name, case, METHODS[method])
