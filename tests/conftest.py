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

pytest_plugins = ["tests.support.command_line"]

methods()  # all are known before any test
torch.set_num_threads(1)  # models are tiny: threads only wait for each other


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
