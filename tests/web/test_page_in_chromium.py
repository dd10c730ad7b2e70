"""The page as it is used, in headless Chromium: nothing is asked of other machines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import prunus
from prunus.inference.answer import answer
from prunus.inference.named import build_methods
from prunus.tasks.drawn import drawn_image
from prunus.web.desk import Desk
from prunus.web.samples import samples
from prunus.web.serve import launch
from prunus.web.source import Source, prepare
from tests.support.chromium import headless
from tests.support.clips import write_video
from tests.web.conftest import CLIP, QUESTION, SCENE

pytest.importorskip("gradio", reason="needs prunus[web]: make test-web")
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright: make test-web")


DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
WAIT = 60_000  # on a busy machine

#: Addresses of other machines that this process connected to since the page was made.
CALLED: list[str] = []


HERE = ("127.0.0.1", "localhost", "::1")


def _watch(event: str, arguments: Any) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        CALLED.extend(str(arguments[1]) for one in arguments[1][:1] if one not in HERE)
    if event == "socket.getaddrinfo" and arguments[0] not in HERE:
        CALLED.append(str(arguments[0]))


@pytest.fixture(scope="module")
def other() -> Desk:
    """The same model once more: that of the page is the page's."""
    return Desk("tiny-qwen", *prunus.load("tiny-qwen"))


@pytest.fixture(scope="module")
def address(qwen_desk: Desk) -> Iterator[str]:
    """Where the page of tiny-qwen is."""
    sys.addaudithook(_watch)
    page = launch(qwen_desk, ["clse", "divprune"], 6, "127.0.0.1", 0, False)
    yield page.local_url
    page.close(verbose=False)
    assert CALLED == []


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with headless("test-web") as browser:
        yield browser


class Visit:
    """A tab on the page, what it complained about, and what it asked of others."""

    def __init__(self, browser: Any, address: str, **settings: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESK, **settings})
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.outside: list[str] = []
        self.complaints: list[str] = []
        own = (address, "data:", "blob:", address.replace("http", "ws"))
        self.page.on("request", lambda one: one.url.startswith(own) or self.outside.append(one.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console", lambda said: said.type != "error" or self.complaints.append(said.text)
        )
        self.page.goto(address, timeout=WAIT)
        self.page.wait_for_selector("#shot-A img")
        self.page.wait_for_selector("#said-B .answer")

    def text(self, place: str) -> str:
        return str(self.page.locator(place).inner_text())

    def settles(self, place: str, words: str) -> None:
        """Until ``place`` says so."""
        sync_api.expect(self.page.locator(place)).to_contain_text(words, timeout=WAIT)

    def picture(self, side: str) -> str:
        return str(self.page.locator(f"#shot-{side} img").get_attribute("src"))

    def keep(self, side: str, percent: float) -> None:
        box = self.page.locator(f"#keep-{side} input[type=number]")
        box.fill(str(percent))
        box.press("Tab")

    def choose(self, side: str, method: str) -> None:
        box = self.page.locator(f"#method-{side} input")
        box.fill(method)
        box.press("Enter")
        box.blur()

    def close(self) -> None:
        self.context.close()
        assert self.outside == []
        assert self.complaints == []


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Visit]:
    opened = Visit(chromium, address)
    yield opened
    opened.close()


def direct(desk: Desk, method: str, keep: str | None, source: Source, question: str) -> Any:
    """What prunus says without a page."""
    prompt = prepare(desk.model, desk.processor, source, question)
    methods = build_methods(method, keep, [])
    return answer(desk.model, desk.processor, prompt.inputs, methods, 6)


def test_both_sides_and_the_numbers(visit: Visit, other: Desk) -> None:
    for side, method in (("A", "clse"), ("B", "divprune")):
        found = direct(other, method, "0.11", SCENE, QUESTION)
        assert visit.text(f"#said-{side} .answer") == found.text
        assert f"{found.report['tokens']['kept']:g} of 144 kept" in visit.text(f"#below-{side}")
    dense = direct(other, "none", None, SCENE, QUESTION)
    assert f"{dense.report['kv_bytes']['pruned'] / 1024:,.0f}" in visit.text("#numbers")
    assert "True answer" in visit.text("#numbers")
    assert visit.page.locator("#below-A img.chart").count() == 1


def test_the_picture_follows_the_slider(visit: Visit, other: Desk) -> None:
    before = visit.picture("A")
    slider = visit.page.locator("#keep-A input[type=range]")
    slider.focus()
    for _ in range(40):
        slider.press("ArrowRight")
    found = direct(other, "clse", "0.31", SCENE, QUESTION)
    visit.settles("#below-A", f"{found.report['tokens']['kept']:g} of 144 kept")
    visit.settles("#said-A .setting", "keep=0.31")
    assert visit.picture("A") != before
    assert "keep=0.11" in visit.text("#said-B .setting")


def test_nothing_moves_by_itself_where_that_is_not_wanted(visit: Visit) -> None:
    visit.page.locator("#live input").uncheck()
    visit.keep("A", 50)
    visit.page.wait_for_timeout(1500)
    assert "15 of 144 kept" in visit.text("#below-A")
    visit.page.locator("#ask").click()
    visit.settles("#below-A", "72 of 144 kept")


def test_what_is_copied_is_what_is_shown(visit: Visit) -> None:
    visit.keep("B", 25)
    visit.settles("#said-B .setting", "keep=0.25")
    visit.page.locator("#copy button").first.click()
    visit.settles("#command-B", "--method divprune --keep 0.25")
    visit.settles("#python-B", "prunus.prune(model, 'divprune', keep=0.25)")


def test_views_of_an_answer(visit: Visit) -> None:
    kept = visit.picture("A")
    visit.page.locator("#view label", has_text="scores").click()
    visit.settles("#below-A", "importance by rank, layer 1")
    assert visit.picture("A") != kept
    visit.page.locator("#view label", has_text="stages").click()
    visit.page.wait_for_selector("#strip-A img")
    assert visit.page.locator("#strip-A .thumbnail-item").count() == 3


def test_refusals_are_told_where_they_belong(visit: Visit) -> None:
    visit.choose("A", "clsee")
    visit.settles("#said-A .refusal", "did you mean 'clse'")
    assert visit.text("#said-B .answer")
    visit.choose("A", "<img src=x onerror=alert(1)>${1*1}{{2}}")
    visit.settles("#said-A .refusal", "<img src=x onerror=alert(1)>${1*1}{{2}}")
    visit.choose("A", "clse")
    visit.settles("#said-A .setting", "clse keep")
    visit.page.locator("#more-A button").first.click()
    visit.page.locator("#params-A textarea, #params-A input").first.fill("keep=0")
    visit.page.locator("#params-A textarea, #params-A input").first.blur()
    visit.settles("#said-A .refusal", "keeps nothing")
    assert "Traceback" not in visit.page.content()


def test_a_method_that_is_typed_runs_no_file(visit: Visit, tmp_path: Path) -> None:
    """Not where it is asked, and not where it is chosen: to look a method up is to run its file."""
    ran = tmp_path / "ran"
    (tmp_path / "trap.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    visit.choose("A", f"{tmp_path / 'trap.py'}:Trap")
    visit.settles("#said-A .refusal", "the page runs no files")
    visit.page.wait_for_timeout(500)
    assert not ran.exists()


@pytest.mark.parametrize("percent", [0, 0.5, 100, 1e9, -5])
def test_any_share_is_answered_or_refused(visit: Visit, percent: float) -> None:
    visit.keep("A", percent)
    visit.keep("B", 50)
    visit.settles("#said-B .setting", "keep=0.5")
    visit.page.wait_for_selector("#said-A .answer, #said-A .refusal")


def test_a_question_that_is_empty(visit: Visit) -> None:
    box = visit.page.locator("#question input")
    box.fill(" ")
    box.press("Tab")  # Enter takes the first question that has what was typed in it
    visit.settles("#notice .refusal", "the prompt is empty")
    box.fill("is there a circle ?")
    box.press("Enter")
    box.blur()
    visit.page.wait_for_selector("#said-A .answer")
    assert not visit.page.locator("#notice .refusal").is_visible()


def test_an_image_of_ones_own(visit: Visit, other: Desk, tmp_path: Path) -> None:
    own = tmp_path / "my photo.png"
    drawn_image("builtin:77").resize((256, 192)).save(own)
    visit.page.locator("input[type=file]").first.set_input_files(own)
    found = direct(other, "clse", "0.11", Source.of([str(own)]), QUESTION)
    kept = f"{found.report['tokens']['kept']:g} of {found.report['tokens']['original']:g} kept"
    visit.settles("#below-A", kept)
    assert visit.text("#said-A .answer") == found.text
    assert "True answer" not in visit.text("#numbers")
    visit.page.locator("#copy button").first.click()
    visit.settles("#command-A", "'my photo.png'")


def test_a_photograph_among_the_samples(visit: Visit) -> None:
    place = [one.source.files for one in samples(True)].index(("builtin:coffee",))
    visit.page.locator("#samples button.thumbnail-item").nth(place).click()
    visit.settles("#numbers", "knows drawn scenes only")
    assert "True answer" not in visit.text("#numbers")
    visit.page.locator("#copy button").first.click()
    visit.settles("#command-A", "builtin:coffee")


def test_a_file_that_is_no_image(visit: Visit, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    visit.page.locator("input[type=file]").first.set_input_files(broken)
    visit.settles("#notice .refusal", "no image that Pillow can read")
    visit.page.locator("#samples button.thumbnail-item").nth(1).click()
    visit.settles("#said-A .answer", "")
    assert not visit.page.locator("#notice .refusal").is_visible()


def test_a_video_is_a_strip_of_frames(visit: Visit, other: Desk) -> None:
    clip = next(one for one in samples(True) if one.source == CLIP)
    place = [one.source for one in samples(True)].index(CLIP)
    visit.page.locator("#samples button.thumbnail-item").nth(place).click()
    visit.page.wait_for_selector("#strip-B img")
    found = direct(other, "divprune", "0.11", CLIP, clip.questions[0][0])
    visit.settles("#said-B .answer", found.text)
    assert visit.page.locator("#strip-B .thumbnail-item").count() == 8
    captions = visit.page.locator("#strip-B .caption-label").all_inner_texts()
    counts = [int(re.findall(r"\d+", one)[2]) for one in captions]
    assert sum(counts[::2]) == found.report["tokens"]["kept"]  # slices of two frames


def test_a_video_of_ones_own(visit: Visit, tmp_path: Path) -> None:
    own = write_video(tmp_path / "own.mp4", 30)
    visit.page.locator("input[type=file]").first.set_input_files(own)
    visit.page.wait_for_selector("#strip-A img")
    assert visit.page.locator("#strip-A .thumbnail-item").count() == 6  # three seconds, two each
    visit.page.locator("#copy button").first.click()
    visit.settles("#command-A", "--video own.mp4")


def test_several_videos_are_refused(visit: Visit, tmp_path: Path) -> None:
    clips = [write_video(tmp_path / f"{name}.mp4", 8) for name in "ab"]
    visit.page.locator("input[type=file]").first.set_input_files(clips)
    visit.settles(".toast-body", "give images, or one video")
    assert visit.text("#said-A .answer")  # what was there stays


def test_times(visit: Visit) -> None:
    visit.page.locator("#time").click()
    visit.settles("#numbers", "first token, ms")
    assert re.search(r"of it \[\d", visit.text("#numbers"))


def test_two_tabs_at_once(chromium: Any, address: str, other: Desk) -> None:
    tabs = [Visit(chromium, address) for _ in range(2)]
    wanted = []
    for tab, percent in zip(tabs, (20, 60), strict=True):
        tab.keep("A", percent)
    for tab, percent in zip(tabs, (30, 70), strict=True):
        tab.keep("B", percent)
        keep = repr(percent / 100)
        wanted.append(direct(other, "divprune", keep, SCENE, QUESTION))
    for tab, found in zip(tabs, wanted, strict=True):
        tab.settles("#below-B", f"{found.report['tokens']['kept']:g} of 144 kept")
        assert tab.text("#said-B .answer") == found.text
        tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(chromium: Any, address: str, scheme: str) -> None:
    tab = Visit(chromium, address, viewport=PHONE, color_scheme=scheme)
    wide = tab.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= PHONE["width"]
    box = tab.page.locator("#shot-A img").bounding_box()
    assert box["width"] >= 340
    back, ink = tab.page.evaluate(
        "[getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('#said-A .answer')).color]"
    )
    assert abs(light(back) - light(ink)) > 120
    assert (light(back) > 128) == (scheme == "light")
    tab.close()


def light(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_a_desk_shows_a_picture_whole(visit: Visit) -> None:
    """The picture is what the page is about: most of the height, and above the fold."""
    box = visit.page.locator("#shot-A img").bounding_box()
    assert box["y"] + box["height"] <= DESK["height"]
    assert box["height"] >= 0.6 * DESK["height"]
