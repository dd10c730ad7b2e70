"""docs/methods.md is what the methods are now."""

from __future__ import annotations

from tests.support.catalogue import PAGE, page


def test_the_page_is_up_to_date() -> None:
    """Else: python -m tests.support.catalogue"""
    assert PAGE.read_text("utf-8") == page()
