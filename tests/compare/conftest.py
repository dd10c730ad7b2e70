"""A small comparison; Chromium and a visit to the sample's page: skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunus.compare.contract import Comparison
from prunus.compare.page import write_page
from tests.compare.chromium import Visit
from tests.compare.sample import make_comparison
from tests.compare.small import SMALL, run
from tests.support.chromium import headless


@pytest.fixture(scope="session")
def comparison() -> Comparison:
    """The sample, which a test must leave as it is."""
    return make_comparison(questions=120, pictures=2)


@pytest.fixture(scope="session")
def address(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the page of the sample lies."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(comparison, path)
    return path.as_uri()


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """A small comparison of the built-in model, and its store."""
    place = tmp_path_factory.mktemp("comparison") / "store"
    return run(SMALL, place), place


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Headless Chromium of the system, driven by Playwright."""
    with headless("test-page") as browser:
        yield browser


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Any]:
    """The page on a desk. Whatever a test does with it: no complaints, no requests."""
    opened = Visit(chromium, address)
    yield opened.ready()
    opened.close()
