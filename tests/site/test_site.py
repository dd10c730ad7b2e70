"""The site that `make docs` built: links, what it loads, what is on it, and how it looks."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="make test-docs runs it in an environment of its own")

import prunus
from tests.site.conftest import served, visiting
from tools.docs import catalogue, reference

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"
PHONE = {"width": 390, "height": 844}
#: Attributes from which a browser loads something by itself.
LOADING = {"img": "src", "script": "src", "source": "src", "iframe": "src", "link": "href"}
#: A page of somebody else's making: it is one file, and has tests of its own.
OWN_TESTS = ("comparison.html",)


class Read(HTMLParser):
    """Names, links, and what is loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.names |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADING and LOADING[tag] in given and given.get("rel") not in ("canonical",):
            self.loaded.append(given[LOADING[tag]])


@functools.cache
def read(page: Path) -> Read:
    return Read(page.read_text("utf-8"))


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    assert SITE.is_dir(), "make docs builds it"
    found = [page for page in sorted(SITE.rglob("*.html")) if page.name not in OWN_TESTS]
    assert len(found) > 70
    return found


def test_no_link_leads_nowhere(pages: list[Path]) -> None:
    gone = []
    for page in pages:
        if page.name == "404.html":  # its links are made for the root of a server
            continue
        for link in read(page).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if target == SITE.parent / "index.html":  # of all versions: test_versions.py
                continue
            if target.is_dir():
                target = target / "index.html"
            anchor = unquote(parts.fragment)
            missing = anchor and target.suffix == ".html" and anchor not in read(target).names
            if not target.exists() or (missing and not anchor.startswith("__")):
                gone.append((page.relative_to(SITE).as_posix(), link))
    assert gone == []


def test_nothing_is_loaded_from_outside(pages: list[Path]) -> None:
    for page in pages:
        if page.name == "404.html":
            continue
        for one in read(page).loaded:
            parts = urlsplit(one)
            assert not parts.netloc and parts.scheme in ("", "data"), (page.name, one)
            if parts.path and not parts.scheme:
                assert (page.parent / unquote(parts.path)).exists(), (page.name, one)
    for style in SITE.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text("utf-8")), (
            style
        )


def test_every_public_name_is_in_the_reference() -> None:
    names = {name for page in (SITE / "reference").glob("*.html") for name in read(page).names}
    assert set(prunus.__all__) - set(reference.names()) == {"__version__"}
    assert [name for name in reference.names() if reference.home(name) not in names] == []
    text = "".join(page.read_text("utf-8") for page in (SITE / "reference").glob("*.html"))
    assert not re.search(r":(class|func|meth|attr|data|mod):", text)


def test_every_method_has_a_page() -> None:
    for name, cls in catalogue.known().items():
        page = SITE / "methods" / f"{name}.html"
        names = read(page).names
        for part in ("idea", "when-it-fails", "parameters", "paper-and-differences"):
            assert part in names, (name, part)
        text = page.read_text("utf-8")
        assert all(f"{name}@{preset}" in text for preset in cls.presets), name
    drawn = {one.stem for one in (SITE / "methods" / "img").glob("*.png")}
    assert len(drawn) > len(catalogue.known()) - 4


def test_the_version_is_on_every_page(pages: list[Path]) -> None:
    for page in pages:
        assert f"prunus {prunus.__version__}" in page.read_text("utf-8"), page


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(SITE) as found:
        yield found


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Opens a page of the site."""
    with visiting(browser, address) as open_page:
        yield open_page


def test_search_finds_a_method(visit: Any) -> None:
    page = visit("index.html", viewport={"width": 1280, "height": 900})
    page.locator(".md-search__input").click()
    page.keyboard.type("EvoPrune", delay=20)
    page.wait_for_selector(".md-search-result__link")
    found = page.locator(".md-search-result__link").evaluate_all("all => all.map(a => a.href)")
    assert any("evoprune" in link for link in found), found
    page.locator(".md-search-result__link").first.click()
    page.wait_for_function("location.pathname != '/index.html'")


@pytest.mark.parametrize(
    "path",
    [
        "index.html",
        "start.html",
        "how-it-works.html",
        "methods.html",
        "methods/visipruner.html",
        "leaderboard.html",
        "reference/pruning.html",
        "reference/writing.html",
        "notebooks/look-at-tokens.html",
    ],
)
def test_a_phone_shows_it_without_scrolling_sideways(path: str, visit: Any) -> None:
    page = visit(path, viewport=PHONE, is_mobile=True)
    page.wait_for_load_state("load")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"], f"{path} is {width} wide"
    assert page.locator("h1").first.is_visible()
    broken = page.evaluate(
        "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    )
    assert broken == []
    folder = ROOT / "out" / "site"
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(folder / f"{path.replace('/', '-').removesuffix('.html')}.png"))


def test_it_can_be_read_from_the_file_system(browser: Any) -> None:
    """Without a server, pages and links work; only the search does not."""
    context = browser.new_context()
    page = context.new_page()
    page.goto((SITE / "start.html").as_uri())
    page.get_by_role("link", name="How it works").first.click()
    page.wait_for_function("location.pathname.endsWith('/how-it-works.html')")
    context.close()
