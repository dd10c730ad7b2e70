"""Headless Chromium of the system, driven by Playwright; skipped where either is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def headless(target: str) -> Iterator[Any]:
    """A browser; ``target`` of the Makefile installs Playwright."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason=f"Playwright is not installed: make {target}"
    )
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()
