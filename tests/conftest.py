"""What every test has: models of every kind, the command line, and no network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: tests never ask the network

from collections.abc import Iterator

import pytest
import torch

from prunus.method.base import KNOWN
from prunus.method.registry import methods
from tests.support.models import MODELS, Case, case_of
from tests.support.settings import LATER

pytest_plugins = ["tests.support.command_line"]

methods()  # all are known before any test
torch.set_num_threads(1)  # models are tiny: threads only wait for each other


#: Where every setting of every method is tried by `make test`; on the other kinds of model only
#: the first setting of each is (`make test-all`: all on all).
EVERY_SETTING = ("llava-clip", "qwen2.5-vl-video")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the rest of the cross product of settings and models."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        setting, kind = params.get("method", params.get("name")), params.get("case")
        if kind is not None and kind not in EVERY_SETTING and setting in LATER:
            item.add_marker("full")


@pytest.fixture(params=sorted(MODELS))
def case(request: pytest.FixtureRequest) -> Case:
    """A fresh tiny model of every supported kind."""
    return case_of(request.param)


@pytest.fixture(autouse=True)
def _methods_of_a_test_go_with_it() -> Iterator[None]:
    """So that what a test defines is not among the methods that another test lists."""
    before = dict(KNOWN)
    yield
    KNOWN.clear()
    KNOWN.update(before)


@pytest.fixture
def llava() -> Case:
    """The plain LLaVA-1.5 case."""
    return case_of("llava-clip")
