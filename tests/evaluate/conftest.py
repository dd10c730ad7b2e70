"""The built-in model and its questions: loading them is most of the time of these tests."""

from typing import Any

import pytest

import prunus
from prunus.evaluate import EvalSet, load_builtin_set


@pytest.fixture(scope="package")
def tiny() -> tuple[Any, Any]:
    return prunus.load("tiny-llava")


@pytest.fixture(scope="package")
def questions() -> EvalSet:
    return load_builtin_set()
