"""Curves and stars of the page, read off as they are drawn."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from prunus.compare.page import write_page
from tests.compare.chromium import Visit, choose


def test_points_of_the_curves_by_keyboard_and_pointer(visit: Any) -> None:
    chart = visit.locator("#pareto svg")
    chart.focus()
    visit.keyboard.press("ArrowRight")
    tip = visit.locator("#tip")
    assert tip.is_visible() and tip.locator("b").inner_text() == "clse"
    visit.keyboard.press("ArrowDown")
    assert tip.locator("b").inner_text() == "evoprune"
    assert re.search(r"evoprune at .* right", visit.locator("#pareto-said").inner_text())
    assert chart.locator(".whisker").count() >= 1
    visit.keyboard.press("Escape")
    assert not tip.is_visible()
    mark = chart.locator('.series[data-method="stepwise"] .mark').first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    visit.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert tip.is_visible() and tip.locator("b").inner_text() == "stepwise"


def test_points_lie_where_the_axes_say(visit: Any, comparison: Any) -> None:
    """Read off the drawing: ticks give the scale, a mark's middle the value."""
    [run, *_] = comparison["runs"]
    for cost, value in (("LLM FLOPs", "llm_flops"), ("KV cache", "kv")):
        choose(visit, "cost", cost)
        axes = visit.evaluate(
            "[...document.querySelectorAll('#pareto svg > text:not([class])')].map(t =>"
            " [t.getAttribute('text-anchor'), +t.textContent,"
            " +t.getAttribute('x'), +t.getAttribute('y')])"
        )
        across = [(number, x) for anchor, number, x, _ in axes if anchor == "middle"]
        up = [(number, y - 4) for anchor, number, _, y in axes if anchor == "end"]
        marks = visit.evaluate(
            "[...document.querySelectorAll('.series[data-method=\"divprune\"] .mark')].map(m => {"
            " const b = m.getBBox(); return [b.x + b.width / 2, b.y + b.height / 2]; })"
        )
        wanted = sorted(
            (row["cost"][value], row["accuracy"]["value"])
            for row in run["rows"]
            if row["method"] == "divprune" and row["meaning"] == "true"
        )
        assert len(marks) == len(wanted) == 3
        for (x, y), (share, right) in zip(marks, wanted, strict=True):
            assert _between(across, x) == pytest.approx(100 * share, abs=0.3)
            assert _between(up, y) == pytest.approx(100 * right, abs=0.5)


def _between(ticks: list[tuple[float, float]], place: float) -> float:
    (low, at), (high, end) = min(ticks), max(ticks)
    return low + (place - at) / (end - at) * (high - low)


def test_the_frontier_is_what_nothing_beats(visit: Any) -> None:
    found = visit.evaluate(
        "document.querySelector('#pareto .frontier').getAttribute('d')"
        ".match(/[\\d.]+/g).map(Number)"
    )
    marks = visit.evaluate(
        "[...document.querySelectorAll('.series .line')].flatMap(l => l.getAttribute('d').slice(1)"
        ".split('L').map(p => p.split(' ').map(Number)))"
    )
    best: list[list[float]] = []
    for x, y in sorted(marks):
        if not best or y < best[-1][1]:
            best.append([x, y])
    flat = [number for point in best for number in point]
    assert len(found) == len(flat) + 1  # and on to the right edge
    assert found[:-1] == pytest.approx(flat, abs=0.1)


def test_what_is_no_method_is_neither_shown_nor_on_the_frontier(visit: Any) -> None:
    chip = visit.locator('#pareto-legend .chip[data-method="ground-truth"]')
    assert chip.get_attribute("aria-pressed") == "false"
    frontier = visit.locator("#pareto .frontier").get_attribute("d")
    lowest = visit.locator("#pareto svg > text:not([class])").first.text_content()
    chip.click()
    assert visit.locator('.series[data-method="ground-truth"]').count() == 1
    after = visit.locator("#pareto .frontier").get_attribute("d")
    assert after.count("V") == frontier.count("V")
    assert visit.locator("#pareto svg > text:not([class])").first.text_content() == lowest
    assert "ground-truth" not in visit.locator("#tiles").inner_text()


def test_names_beside_marks_do_not_cover_each_other(visit: Any) -> None:
    boxes = visit.evaluate(
        "[...document.querySelectorAll('#pareto .name')].map(t => { const b = t.getBBox();"
        " return [b.x, b.y + 3, b.x + b.width, b.y + b.height - 3]; })"
    )
    assert len(boxes) > 8
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[:i]:
            apart = other[2] < left or right < other[0] or other[3] < top or bottom < other[1]
            assert apart, (boxes[i], other)


def test_the_legend_hides_methods(visit: Any) -> None:
    chip = visit.locator('#pareto-legend .chip[data-method="random"]')
    assert visit.locator(".random-band").count() == 1
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert visit.locator('.series[data-method="random"], .random-band').count() == 0
    visit.get_by_role("button", name="prunus and controls").click()
    assert visit.locator('.series[data-method="fastv"]').count() == 0
    visit.get_by_role("button", name="All methods").click()
    assert visit.locator('.series[data-method="fastv"]').count() == 1


def test_the_radar_shows_what_is_chosen(visit: Any) -> None:
    visit.locator("#kinds summary").click()
    visit.locator('#radar-choice .chip[data-method="holov"]').click()
    assert "holov" in visit.locator("#radar-table").inner_text()
    count = visit.locator("#radar .area").count()
    visit.locator('#radar-choice .chip[data-method="random"]').click()
    assert visit.locator("#radar .area").count() == count - 1


def test_ticks_say_where_they_are(chromium: Any, comparison: Any, tmp_path: Path) -> None:
    """A step of 2.5 is not written as 2 and 3."""
    made = json.loads(json.dumps(comparison))
    for run in made["runs"]:
        for row in run["rows"]:
            if not row["refused"]:
                row["accuracy"] = {"value": 0.9, "low": 0.88, "high": 0.92}
        run["dense"]["accuracy"] = {"value": 0.98, "low": 0.97, "high": 0.992}
    write_page(made, tmp_path / "page.html")
    opened = Visit(chromium, (tmp_path / "page.html").as_uri())
    page = opened.ready()
    seen = set()
    for width in (500, 700, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)
        ticks = page.evaluate(
            "[...document.querySelectorAll('#pareto svg > text:not([class])')].filter(t =>"
            " t.getAttribute('text-anchor') === 'end').map(t => +t.textContent)"
        )
        steps = [high - low for low, high in pairwise(ticks)]
        assert len(steps) >= 3 and steps == pytest.approx([steps[0]] * len(steps), abs=1e-6)
        seen.add(steps[0])
    assert 2.5 in seen
    opened.close()


def test_methods_by_where_they_work(visit: Any, comparison: Any) -> None:
    """The curves of one place; a random choice stays, for comparison."""
    visit.locator('select[name="place"]').select_option(label="in the vision tower")
    drawn = visit.evaluate(
        "[...document.querySelectorAll('#pareto .series')].map(one => one.dataset.method)"
    )
    there = {name for name, one in comparison["methods"].items() if "tower" in one["place"]}
    assert set(drawn) == there | {"random"} and {"evoprune", "tome"} <= there
    visit.locator('select[name="place"]').select_option(label="everywhere")
    assert visit.locator("#pareto .series").count() > 20


def test_names_beside_curves_keep_apart(visit: Any) -> None:
    boxes = visit.evaluate(
        "[...document.querySelectorAll('#pareto .name')].map(one => { const b = one.getBBox();"
        " return [one.textContent, b.x, b.x + b.width, b.y + b.height / 2]; })"
    )
    assert len(boxes) > 8
    for one, left, right, middle in boxes:
        for other, start, end, at in boxes:
            if one < other and abs(middle - at) < 12:
                assert right < start or end < left, (one, other)


def test_the_systems_are_told_from_their_compositions(visit: Any) -> None:
    groups = visit.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#pareto-legend .group')].map(group =>"
        " [group.getAttribute('aria-label'),"
        " [...group.querySelectorAll('.chip')].map(chip => chip.dataset.method)]))"
    )
    assert sorted(groups["prunus\u2019 systems"]) == ["clse", "evoprune", "stepwise", "visipruner"]
    assert all(name.startswith("prunus@") for name in groups["prunus\u2019 compositions"])
    assert re.search(r"One file of \d+\.\d MB", visit.locator("footer").inner_text())
