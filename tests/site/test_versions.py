"""The sites of several versions side by side: what is written, and the list in the header."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mkdocs", reason="make test-docs runs it in an environment of its own")

from tests.site.conftest import served, visiting
from tools.docs.release import newest, publish, versions

SITE = Path(__file__).resolve().parents[2] / "site"
#: What the header puts behind the name of the site.
TOLD = "getComputedStyle(document.querySelector('.md-header__topic > span'), '::after').content"
WIDE = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """What the files of a site are to `publish`."""
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / "index.html").write_text("a page")
    return folder


def listed(folder: Path) -> list[tuple[str, list[str]]]:
    found = json.loads((folder / "versions.json").read_text("utf-8"))
    return [(one["version"], one["aliases"]) for one in found]


def test_the_newest_is_first_and_readers_are_led_to_it(built: Path, tmp_path: Path) -> None:
    sites = tmp_path / "sites"
    for version in ("0.9.0", "0.10.0", "0.2.0"):
        publish(built, sites, version)
    assert listed(sites) == [("0.10.0", ["latest"]), ("0.9.0", []), ("0.2.0", [])]
    assert "url=0.10.0/index.html" in (sites / "index.html").read_text("utf-8")


def test_a_trial_version_is_listed_and_not_the_one_that_readers_see(
    built: Path, tmp_path: Path
) -> None:
    sites = tmp_path / "sites"
    publish(built, sites, "0.3.0rc1")
    assert listed(sites) == [("0.3.0rc1", ["latest"])]  # there is no other
    publish(built, sites, "0.2.0")
    assert listed(sites) == [("0.3.0rc1", []), ("0.2.0", ["latest"])]
    assert newest(versions(sites)) == "0.2.0"


def test_a_version_is_replaced_whole_and_others_stay(built: Path, tmp_path: Path) -> None:
    sites = tmp_path / "sites"
    (built / "gone.html").write_text("a page that is taken away")
    publish(built, sites, "0.1.0")
    publish(built, sites, "0.2.0")
    (built / "gone.html").unlink()
    publish(built, sites, "0.2.0")
    assert not (sites / "0.2.0" / "gone.html").exists()
    assert (sites / "0.1.0" / "gone.html").exists()
    (sites / "0.1.0" / "index.html").unlink()  # no site any more
    (sites / "pictures").mkdir()  # nor a version
    (sites / "pictures" / "index.html").write_text("")
    assert publish(built, sites, "0.3.0") == ["0.3.0", "0.2.0"]


def test_what_is_no_site_or_no_version_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make docs builds it"):
        publish(tmp_path / "nothing", tmp_path / "sites", "0.1.0")
    with pytest.raises(SystemExit, match="is no version"):
        publish(built, tmp_path / "sites", "../elsewhere")
    assert not (tmp_path / "sites").exists()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of the built site, of which the older lacks a page."""
    assert SITE.is_dir(), "make docs builds it"
    folder = tmp_path_factory.mktemp("sites")
    publish(SITE, folder, "0.8.0")
    publish(SITE, folder, "0.9.0")
    older = folder / "0.8.0"
    (older / "tune.html").unlink()
    addresses = (older / "sitemap.xml").read_text("utf-8")
    (older / "sitemap.xml").write_text(addresses.replace("/tune.html", "/another.html"), "utf-8")
    return folder


@pytest.fixture
def visit(browser: Any, both: Path) -> Iterator[Any]:
    """Opens a page of either version."""
    with served(both) as address, visiting(browser, address) as open_page:
        yield open_page


def choose(page: Any, version: str) -> None:
    page.locator(".md-version__current").hover(force=True)  # the list opens over it
    page.locator(".md-version__link", has_text=version).click()


def test_the_list_leads_to_the_same_page_of_another_version(visit: Any) -> None:
    page = visit("", **WIDE)
    page.wait_for_function("location.pathname == '/0.9.0/index.html'")
    page.goto(page.url.replace("index.html", "methods/clse.html"))
    page.wait_for_selector(".md-version")
    assert page.locator(".md-version__link").all_inner_texts() == ["0.9.0", "0.8.0"]
    assert page.locator(".md-version__current").inner_text() == "0.9.0"
    assert not page.locator("[data-md-component=outdated]").is_visible()
    choose(page, "0.8.0")
    page.wait_for_function("location.pathname == '/0.8.0/methods/clse.html'")
    notice = page.locator("[data-md-component=outdated]")
    notice.wait_for(state="visible")
    notice.get_by_role("link").click()
    page.wait_for_function("location.pathname == '/0.9.0/index.html'")


def test_where_the_other_version_lacks_the_page_it_leads_to_its_first(visit: Any) -> None:
    page = visit("0.9.0/tune.html", **WIDE)
    page.wait_for_selector(".md-version")
    choose(page, "0.8.0")
    page.wait_for_url("**/0.8.0/**")
    assert page.locator("h1").first.inner_text().startswith("prunus")


def test_the_version_is_told_once(visit: Any) -> None:
    """The header tells it by the list, or by itself where there is none."""
    page = visit("0.9.0/start.html", **WIDE)
    page.wait_for_selector(".md-version")
    assert page.evaluate(TOLD) == "none"


def test_a_phone_shows_the_list(visit: Any) -> None:
    page = visit("0.9.0/index.html", viewport={"width": 390, "height": 844}, is_mobile=True)
    page.wait_for_selector(".md-version")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".md-version__current").is_visible()


def test_a_site_alone_has_no_list_and_tells_its_version(browser: Any) -> None:
    with served(SITE) as address, visiting(browser, address) as open_page:
        page = open_page("start.html", **WIDE)
        page.wait_for_load_state("networkidle")
        assert page.locator(".md-version").count() == 0
        assert page.evaluate(TOLD).startswith('" ')
        assert not page.locator("[data-md-component=outdated]").is_visible()
