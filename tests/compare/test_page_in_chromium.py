"""The page as somebody uses it, in headless Chromium; `make test-page` brings Playwright along."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prunus.compare.page import write_page
from tests.compare.chromium import PHONE, Visit, choose, drawn, rows

NASTY = '</script><img src="https://example.org/x.png" onerror="document.title=1"><!--'


def test_every_section_is_there_and_says_something(visit: Any) -> None:
    for section in ("accuracy", "kinds", "numbers", "layers", "pictures", "flips", "published"):
        assert len(visit.locator(f"#{section}").inner_text()) > 100, section
    assert "prunus compare --preset sample" in visit.locator("#made").inner_text()
    assert "drawn by lot and say nothing" in visit.locator("#made").inner_text()
    assert visit.locator("#plain").count() == 0  # everything in it is shown better


def test_switching_the_budget_changes_curve_table_and_address(visit: Any, comparison: Any) -> None:
    before = rows(visit)
    choose(visit, "budget", "33.3")
    after = rows(visit)
    assert [key for key, _ in after] != [key for key, _ in before]
    [run, *_] = comparison["runs"]
    expected = {row["key"]: row for row in run["rows"] if row["meaning"] in ("true", "own")}
    for key, shown in after:
        if key != "dense" and not expected[key]["refused"]:
            right = 100 * expected[key]["accuracy"]["value"]
            assert float(shown) == pytest.approx(right, abs=0.051), key
            assert expected[key]["asked"] in (None, 0.3333)
    assert len(after) == len({row["method"] for row in run["rows"]}) + 1
    choose(visit, "meaning", "nominal")
    assert {key.split("|")[1] for key, _ in rows(visit) if "|" in key} == {"nominal", "own"}
    assert "budget=0.3333" in visit.url and "meaning=nominal" in visit.url


def test_an_address_brings_back_what_was_shown(chromium: Any, address: str) -> None:
    told = "#run=tiny-qwen%2Fvideos&budget=0.2222&meaning=nominal"
    opened = Visit(chromium, address + told)
    page = opened.ready()
    assert page.locator("#bar select").input_value() == "tiny-qwen/videos"
    assert "nominal|0.2222" in rows(page)[3][0] or "own" in rows(page)[3][0]
    assert page.locator(".shots.film").count() == 1
    opened.close()


def test_the_table_sorts_by_keyboard_and_says_so(visit: Any) -> None:
    def numbers() -> list[float]:
        return [float(shown) for _, shown in rows(visit) if re.fullmatch(r"[\d.]+", shown)]

    assert numbers() == sorted(numbers(), reverse=True)
    heading = visit.locator('th[data-column="right"]')
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("button").focus()
    visit.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert numbers() == sorted(numbers())
    assert visit.evaluate("document.activeElement.textContent") == "Right, %"  # focus stays
    assert visit.locator("th[aria-sort]").count() == 1
    visit.locator('th[data-column="method"] button').press("Space")
    names = [key.split("|")[0] for key, shown in rows(visit) if not shown.startswith("refused")]
    plain = [name for name in names if name.isalnum()]  # browsers differ about the signs
    assert plain == sorted(plain) and len(plain) > 20
    refused = [shown.startswith("refused") for _, shown in rows(visit)]
    assert any(refused) and refused == sorted(refused)  # at the end, with their reason


def test_the_table_is_filtered(visit: Any) -> None:
    visit.locator('input[name="find"]').fill("divpr")
    assert [key for key, _ in rows(visit)] == ["divprune|true|0.1111"]
    visit.locator('input[name="every"]').check()
    assert [key for key, _ in rows(visit)] == [
        f"divprune|true|{b}" for b in ("0.3333", "0.2222", "0.1111")
    ]
    visit.locator('input[name="find"]').fill("no such method")
    assert "No method is like that" in visit.locator("#table").inner_text()
    visit.locator('input[name="find"]').fill("")
    visit.locator('select[name="kind"]').select_option(label="Controls")
    controls = {"random", "uniform", "pooling", "ground-truth", "blind"}
    assert {key.split("|")[0] for key, _ in rows(visit)} == controls


def test_the_header_of_the_table_and_its_first_column_stay(visit: Any) -> None:
    visit.locator("#table").evaluate("table => table.scrollTo(300, 400)")
    moved = visit.evaluate(
        "(() => { const box = (s) => document.querySelector(s).getBoundingClientRect();"
        " const table = box('#table'); return [box('#table thead th').top - table.top,"
        " box('#table tbody tr:nth-child(12) th').left - table.left]; })()"
    )
    assert all(0 <= one <= 2 for one in moved)


def test_a_phone_scrolls_in_one_direction(chromium: Any, address: str) -> None:
    for told in ("", "#run=tiny-qwen%2Fvideos"):
        opened = Visit(chromium, address + told, viewport=PHONE, has_touch=True)
        page = opened.ready()
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        wide = page.evaluate(
            "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroller, .picker,"
            " .quiet, .skip, dialog, legend, .field > span')"
            " && e.getBoundingClientRect().right > innerWidth + 1)"
            ".map(e => e.tagName + '.' + (e.className.baseVal ?? e.className))"
        )
        assert wide == []
        assert page.locator("#table").evaluate("table => table.scrollWidth > table.clientWidth")
        opened.close()


def test_light_and_dark(chromium: Any, address: str) -> None:
    opened = Visit(chromium, address, color_scheme="dark")
    page = opened.ready()

    def ground() -> list[int]:
        text = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return [int(number) for number in re.findall(r"\d+", text)]

    assert max(ground()) < 60
    dark = drawn(page, "divprune")
    page.get_by_role("button", name="Use the light theme").click()
    assert min(ground()) > 200
    page.wait_for_timeout(100)
    assert drawn(page, "divprune") != dark
    page.reload()
    page = opened.ready()
    assert min(ground()) > 200  # remembered
    page.evaluate("localStorage.clear()")
    page.reload()
    opened.ready()
    assert max(ground()) < 60
    opened.complaints[:] = [one for one in opened.complaints if "ERR_" not in one]
    opened.requests[:] = opened.requests[:1]
    opened.close()


def test_paper_is_light_and_wide_enough(chromium: Any, address: str) -> None:
    opened = Visit(chromium, address, color_scheme="dark", viewport={"width": 1030, "height": 700})
    page = opened.ready()
    dark = drawn(page, "divprune")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(100)
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(33, 28, 34)"
    assert drawn(page, "divprune") != dark
    assert not page.locator("#bar").is_visible()
    wide = page.evaluate("document.querySelector('#table table').getBoundingClientRect().right")
    assert wide <= 1030
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen", color_scheme="dark")
    page.wait_for_timeout(100)
    assert drawn(page, "divprune") == dark
    opened.close()


def test_without_scripts_there_is_a_table(chromium: Any, address: str, comparison: Any) -> None:
    opened = Visit(chromium, address, java_script_enabled=False)
    text = opened.page.locator("body").inner_text()
    assert "This is what the page can show without its scripts" in text
    assert "refused: EVS looks at what changed" in text
    assert "tiny-qwen was asked 120 questions" in text
    assert opened.page.locator("#accuracy").is_hidden()
    assert opened.page.locator("#plain table").count() == len(comparison["runs"])
    opened.close()


def test_everything_can_be_reached_by_tab(visit: Any) -> None:
    visit.evaluate(
        "() => { window.seen = new Set(); addEventListener('focusin', ({ target }) =>"
        " seen.add(target.name || target.id || target.className.baseVal || target.textContent)); }"
    )
    for _ in range(220):
        visit.keyboard.press("Tab")
    seen = set(visit.evaluate("[...seen]"))
    bar = {"run", "budget", "meaning", "theme"}
    table = {"find", "kind", "every", "refused", "table", "Right, %"}
    viewer = {"picture", "scrub", "mode", "stage", "group"}
    rest = {"cost", "Choose methods", "flip-method", "flip-way", "flip-type"}
    assert (bar | table | viewer | rest) - seen == set()


def test_focus_can_be_seen(visit: Any) -> None:
    visit.keyboard.press("Tab")
    visit.keyboard.press("Tab")
    width = visit.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
    assert visit.evaluate("document.activeElement.name") == "run" and width >= 2
    visit.locator("#pareto svg").focus()
    visit.keyboard.press("ArrowRight")
    assert visit.locator("#pareto .ring").get_attribute("visibility") == "visible"


def test_hostile_texts_are_shown_and_nothing_more(
    chromium: Any, comparison: Any, tmp_path: Path
) -> None:
    made = json.loads(json.dumps(comparison))
    made["title"] = made["notes"][0] = NASTY
    for run in made["runs"]:
        for question in run["questions_list"]:
            question["text"] = question["answer"] = NASTY
        for row in run["rows"]:
            if row["method"] == "divprune":
                row["method"] = NASTY
        run["answers"] = {key: [NASTY for _ in one] for key, one in run["answers"].items()}
        run["rival"] = NASTY
    made["methods"][NASTY] = {**made["methods"].pop("divprune"), "summary": NASTY, "paper": NASTY}
    for picture in made["pictures"]:
        picture["text"] = picture["answer"] = picture["dense"] = NASTY
        for shown in picture["shown"].values():
            shown["answer"] = NASTY
            shown["labels"] = [NASTY for _ in shown["labels"]]
    for table in made["published"]:
        table["title"] = table["source"] = NASTY
        table["rows"][0]["flags"] = [NASTY]
    write_page(made, tmp_path / "page.html")
    opened = Visit(chromium, (tmp_path / "page.html").as_uri())
    page = opened.ready()
    assert page.locator("img:not([src^='data:'])").count() == 0
    assert page.title() == NASTY
    assert page.locator("script").count() == 3
    assert page.locator(".asked q").inner_text() == NASTY
    assert NASTY in page.locator("#table").inner_text()
    assert NASTY in page.locator("#flip-cards").inner_text()
    opened.close()


@pytest.mark.parametrize("empty", ["pictures", "published", "right", "one run", "no rival"])
def test_parts_may_be_missing(chromium: Any, comparison: Any, tmp_path: Path, empty: str) -> None:
    made = json.loads(json.dumps(comparison))
    if empty in ("pictures", "published"):
        made[empty] = []
    for run in made["runs"]:
        if empty == "right":
            run["right"], run["answers"] = {}, {}
        if empty == "no rival":
            run["rival"] = None
            run["rows"] = [
                row for row in run["rows"] if row["method"] not in ("random", "divprune")
            ]
    if empty == "one run":
        [run, *_] = made["runs"]
        run["rows"] = [row for row in run["rows"] if row["meaning"] == "own"]
        made["runs"] = [run]
        made["pictures"] = [one for one in made["pictures"] if one["run"] == run["id"]]
    write_page(made, tmp_path / "page.html")
    opened = Visit(chromium, (tmp_path / "page.html").as_uri())
    opened.page.wait_for_selector("html[data-ready]")
    missing = {"pictures": "#pictures", "published": "#published", "right": "#flips"}.get(empty)
    assert missing is None or opened.page.locator(missing).count() == 0
    assert opened.page.locator("#table tbody tr").count() >= 2
    opened.close()


def test_of_several_comparisons_each_says_what_made_it(
    chromium: Any, comparison: Any, tmp_path: Path
) -> None:
    made = json.loads(json.dumps(comparison))
    parts = [{**made["made"], "command": f"prunus compare --output {one}"} for one in "ab"]
    both = "\n".join(one["command"] for one in parts)
    made["made"] = {**parts[0], "command": both, "settings": {}, "apart": parts}
    write_page(made, tmp_path / "page.html")
    opened = Visit(chromium, (tmp_path / "page.html").as_uri(), viewport=PHONE, has_touch=True)
    page = opened.ready()
    told = page.locator("#made .apart code")
    assert [told.nth(n).inner_text() for n in range(told.count())] == both.split("\n")
    names = page.locator("#made dt").all_inner_texts()
    assert "made of" in names and not {"command", "settings", "apart"} & set(names)
    assert f"one of {len(made['runs'])} runs" in page.locator("#lead").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    tools = page.locator("#pareto-tools").evaluate("one => one.scrollWidth <= one.clientWidth")
    assert tools
    opened.close()
