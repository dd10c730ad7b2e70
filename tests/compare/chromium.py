"""A page that is opened in headless Chromium, and what is read off it."""

from __future__ import annotations

from typing import Any

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


class Visit:
    """A page that was opened, what it complained about, and what it asked for."""

    def __init__(self, browser: Any, address: str, **settings: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESK, **settings})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address, timeout=120_000)  # on a busy machine
        self.page.set_default_timeout(10_000)

    def ready(self) -> Any:
        self.page.wait_for_selector("html[data-ready]")
        self.page.wait_for_function("document.querySelector('#shots canvas')?.width > 0")
        return self.page

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []
        assert [one for one in self.requests if not one.startswith("data:")][1:] == []


def choose(page: Any, name: str, value: str) -> None:
    """Press one of the buttons in a row."""
    page.locator(f'fieldset[data-name="{name}"] label', has_text=value).first.click()


def rows(page: Any) -> list[tuple[str, str]]:
    """Key and first number of each row of the table."""
    found: list[tuple[str, str]] = page.evaluate(
        "[...document.querySelectorAll('#table tbody tr')].map(row => [row.dataset.key,"
        " row.querySelector('td b')?.textContent ?? row.querySelector('td').textContent])"
    )
    return [tuple(one) for one in found]


def drawn(page: Any, method: str) -> str:
    """The canvas of a method as it is drawn now."""
    text: str = page.evaluate(
        f"document.querySelector('.shot[data-method=\"{method}\"] canvas').toDataURL()"
    )
    return text
