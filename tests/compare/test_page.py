"""The page of a comparison is one file, holds everything, and lets no text out of its place."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prunus.compare.contract import Comparison
from prunus.compare.page import page_of, parts, write_page
from prunus.compare.page.__main__ import main
from prunus.compare.page.build import embedded
from prunus.compare.page.pack import NO_SCORE, bits, levels, packed
from prunus.compare.page.pictures import smaller
from prunus.errors import PrunusError, PrunusFileError
from tests.compare.sample import METHODS, make_comparison

#: Elements that have no end tag.
VOID = {"meta", "link", "img", "br", "input", "wbr", "hr"}
#: Attributes from which a browser loads something.
LOADING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "ping"}
NASTY = (
    '</script><script>alert(1)</script><!-- <img src=x onerror="alert(2)"> \u2028 &amp; {{ 7 * 7 }}'
)


@cache
def _sample_text() -> str:
    return json.dumps(make_comparison(questions=60, pictures=1))


def sample() -> Comparison:
    """A comparison that may be changed."""
    made: Comparison = json.loads(_sample_text())
    return made


@cache
def page() -> str:
    return page_of(sample())


class Reader(HTMLParser):
    """Elements with their attributes, texts of scripts, and whether every end tag fits."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("script", "style"):
            self.scripts.append("")
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> where {self.open[-3:]} are open"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts[-1] += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def data_of(reader: Reader) -> Any:
    """What the scripts of a page read."""
    [data] = [text for text in reader.scripts if text.lstrip().startswith("{")]
    return json.loads(data)


def test_elements_are_closed_in_order_and_names_are_unique() -> None:
    reader = read(page())
    names = [attributes["id"] for _, attributes in reader.seen if "id" in attributes]
    assert len(names) == len(set(names)) > 20
    [html, *_] = reader.seen
    assert html == ("html", {"lang": "en"})


def test_nothing_is_loaded_from_outside() -> None:
    reader = read(page())
    for tag, attributes in reader.seen:
        for name in LOADING & attributes.keys():
            assert str(attributes[name]).startswith("data:"), (tag, name)
        if tag == "link":
            assert str(attributes["href"]).startswith("data:")
        assert "style" not in attributes  # the policy would refuse it
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"@import|url\(", parts.style())
    for call in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "sendBeacon", "Worker("):
        assert call not in parts.script()


def test_the_policy_names_the_scripts_and_the_style_that_are_there() -> None:
    reader = read(page())
    [policy] = [
        attributes["content"] or ""
        for tag, attributes in reader.seen
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy and "http" not in policy
    style, early, data, script = reader.scripts
    for text, of in ((style, "style-src"), (early, "script-src"), (script, "script-src")):
        directive = next(one for one in policy.split("; ") if one.startswith(of))
        assert f"'{parts.source_hash(text)}'" in directive
    assert parts.source_hash(data) not in policy


def test_scripts_never_make_markup_of_text() -> None:
    markup = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser")
    code = ("createContextualFragment", "srcdoc", "eval(", "new Function", "javascript:")
    for name in markup + code:
        assert name not in parts.script() + parts.early()


def test_every_file_of_style_and_script_is_joined() -> None:
    folder = Path(parts.__file__).parent
    styles = {one.stem for one in (folder / "styles").iterdir()}
    assert styles == {*parts.STYLES, "dark"} and "@dark" not in parts.style()
    assert {one.stem for one in (folder / "scripts").iterdir()} == {*parts.SCRIPTS, "early"}
    for one in (folder / "scripts").iterdir():
        assert len(one.read_text().splitlines()) < 250, f"{one.name} has more than one idea"


def test_texts_stay_texts() -> None:
    comparison = sample()
    comparison["title"] = comparison["notes"][0] = NASTY
    run = comparison["runs"][0]
    run["questions_list"][0]["text"] = run["questions_list"][0]["answer"] = NASTY
    picture = comparison["pictures"][0]
    picture["text"] = NASTY
    for row in run["rows"]:
        if row["method"] == "dart":
            row["method"] = NASTY
    comparison["methods"][NASTY] = comparison["methods"].pop("dart")
    before, after = read(page()), read(page_of(comparison))
    assert [tag for tag, _ in after.seen] == [tag for tag, _ in before.seen]
    data = data_of(after)
    assert data["title"] == NASTY and data["runs"][0]["asked"][0][2] == NASTY
    assert NASTY in data["methods"] and NASTY in after.cells  # not evaluated by the template
    [text] = [one for one in after.scripts if one.startswith("{")]
    assert not set("<>&\u2028") & set(text)


@pytest.mark.parametrize(
    "text", ["</script>", "<!--", "]]>", "\u2028\u2029", "&lt;", "\ud800", '"\\']
)
def test_embedded_json_is_the_same_value(text: str) -> None:
    written = embedded({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert not set("<>&\u2028\u2029") & set(written) and written.isascii()


def test_all_rows_are_in_the_tables_that_need_no_script() -> None:
    comparison = sample()
    cells = read(page()).cells
    rows = [row for run in comparison["runs"] for row in run["rows"]]
    for name in METHODS:
        assert cells.count(name) == sum(row["method"] == name for row in rows), name
    refused = [row for row in rows if row["refused"]]
    assert len(refused) > 3
    for row in refused:
        assert f"refused: {row['refused']}" in cells
    row = next(row for row in rows if row["key"] == "fastv|true|0.1111")
    right = row["accuracy"]
    shown = f"{100 * right['value']:.1f} ({100 * right['low']:.1f} to {100 * right['high']:.1f})"
    at = cells.index(shown)
    assert cells[at - 2 : at] == ["fastv", "11.1 % true"]
    difference = row["against"]["dense"]
    told = f"{100 * difference['value']:+.1f} ({100 * difference['low']:+.1f} to"
    assert cells[at + 1].startswith(told.replace("-", "\u2212"))
    cost = row["cost"]
    assert cost["llm_flops"] and cost["flops"] and cost["kv"] and cost["time"]
    shares = (cost["llm_flops"], cost["flops"], cost["kv"], cost["time"]["median"])
    assert cells[at + 3] == f"{row['average']:.1f}"
    assert cells[at + 4 : at + 8] == [f"{100 * share:.1f}" for share in shares]


def test_all_numbers_are_in_the_data() -> None:
    comparison = sample()
    data = data_of(read(page()))
    assert data["methods"] == comparison["methods"] and data["notes"] == comparison["notes"]
    assert data["made"] == comparison["made"]
    tokens = [576, None]
    for table, given, known in zip(comparison["published"], data["published"], tokens, strict=True):
        assert given == {**table, "tokens": known}
    for run, given in zip(comparison["runs"], data["runs"], strict=True):
        assert len(given["rows"]) == len(run["rows"])
        for row, told in zip(
            (run["dense"], *run["rows"]), (given["dense"], *given["rows"]), strict=True
        ):
            _same(row, told)
        for question, told in zip(run["questions_list"], given["asked"], strict=True):
            kind = given["kinds"][told[1]]
            assert [question["image"], question["type"]] == [told[0], kind]
            assert [question["text"], question["answer"]] == told[2:]


def _same(value: Any, told: Any) -> None:
    """Equal but for digits behind the fifth."""
    if isinstance(value, dict):
        assert value.keys() == told.keys()
        for name in value:
            _same(value[name], told[name])
    elif isinstance(value, list):
        assert len(value) == len(told)
        for one, other in zip(value, told, strict=True):
            _same(one, other)
    elif isinstance(value, float):
        assert told == pytest.approx(value, rel=1e-4)
    else:
        assert value == told


def unbits(text: str, total: int) -> list[int]:
    content = base64.b64decode(text)
    return [i for i in range(total) if content[i // 8] >> (i % 8) & 1]


def test_right_answers_and_flips_are_those_of_the_comparison() -> None:
    comparison = sample()
    data = data_of(read(page()))
    changed = 0
    for run, given in zip(comparison["runs"], data["runs"], strict=True):
        dense = run["right"]["dense"]
        for key, right in run["right"].items():
            assert unbits(given["right"][key], len(right)) == [
                i for i, one in enumerate(right) if one == "1"
            ]
            flips = [i for i in range(len(right)) if right[i] != dense[i]]
            words = [given["words"][i] for i in given["told"][key]]
            assert words == [run["answers"][key][i] for i in flips]
            before = [given["words"][i] for i in given["told"][f"{key}<dense"]]
            assert before == [run["answers"]["dense"][i] for i in flips]
            changed += len(flips)
    assert changed > 500


def test_answers_may_be_left_out() -> None:
    comparison = sample()
    for run in comparison["runs"]:
        run["answers"], run["right"] = {}, {}
    assert data_of(read(page_of(comparison)))["runs"][0]["told"] == {}


def test_kept_tokens_scores_and_merges_are_those_of_the_comparison() -> None:
    comparison = sample()
    data = data_of(read(page()))
    merged = 0
    for picture, given in zip(comparison["pictures"], data["pictures"], strict=True):
        total = len(picture["cells"])
        assert given["cells"] == picture["cells"]
        for key, shown in picture["shown"].items():
            told = given["shown"][key]
            assert [unbits(stage, total) for stage in told["kept"]] == shown["kept"]
            if shown["into"] is None:
                assert told["into"] is None
            else:
                merged += 1
                raw = base64.b64decode(told["into"])
                assert list(struct.unpack(f"<{total}h", raw)) == shown["into"]
            if shown["scores"] is not None:
                low, high = told["scores"]["low"], told["scores"]["high"]
                step = (high - low) / (NO_SCORE - 1)
                for score, byte in zip(
                    shown["scores"], base64.b64decode(told["scores"]["bytes"]), strict=True
                ):
                    assert low + byte * step == pytest.approx(score, abs=step)
    assert merged > 10


def test_scores_that_are_missing_or_no_numbers() -> None:
    told = levels([0.5, None, float("nan"), 1.5])
    assert told is not None
    assert list(base64.b64decode(told["bytes"])) == [0, NO_SCORE, NO_SCORE, NO_SCORE - 1]
    assert levels([None, float("inf")]) is None
    same = levels([2.0, 2.0])
    assert same is not None and list(base64.b64decode(same["bytes"])) == [0, 0]


def test_bits_are_counted_from_the_lowest() -> None:
    assert base64.b64decode(bits([0, 9], 10)) == bytes([1, 2])


def test_a_picture_is_there_once_and_smaller() -> None:
    comparison = sample()
    first = comparison["pictures"][0]
    comparison["pictures"].append({**first, "question": 1})
    data = packed(comparison)
    assert len(data["images"]) == len({one["png"] for one in comparison["pictures"]})
    assert data["pictures"][0]["picture"] == data["pictures"][-1]["picture"]
    assert len(data["images"][0]) < len(first["png"]) / 4


def test_a_thumbnail_is_small() -> None:
    comparison = sample()
    given = data_of(read(page()))["runs"][0]["thumbnails"]
    small = comparison["runs"][0]["thumbnails"]
    assert given.keys() == small.keys() and len(given) == 9
    content = base64.b64decode(given["3"].partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        assert max(image.size) == 152 and image.format == "WEBP"
    assert len(content) < 6000


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/a.png",
        "a.png",
        "data:text/html;base64,PGI+",
        "data:image/png;base64,QUJD",
    ],
)
def test_a_picture_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(PrunusError, match="a picture of the comparison"):
        smaller(address)


def test_a_number_that_is_none_becomes_null() -> None:
    comparison = sample()
    row = next(row for row in comparison["runs"][0]["rows"] if not row["refused"])
    row["cost"]["flops"] = float("nan")
    told = data_of(read(page_of(comparison)))["runs"][0]["rows"]
    assert next(one for one in told if one["key"] == row["key"])["cost"]["flops"] is None


def test_a_comparison_of_a_large_size_is_a_page_of_a_sane_one() -> None:
    size = len(page().encode())
    assert size < 2_500_000
    scripts = len((parts.style() + parts.script()).encode())
    assert scripts < 120_000


def test_both_ways_into_the_dark_have_the_same_colours() -> None:
    dark = re.findall(r"color-scheme: dark;(.*?)}", parts.style(), re.S)
    assert len(dark) == 2
    assert re.findall(r"(--\w+): (.+);", dark[0]) == re.findall(r"(--\w+): (.+);", dark[1])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_and_series_stand_out_from_the_page(theme: str) -> None:
    [block] = re.findall(rf"{theme};(.*?)}}", parts.style(), re.S)[:1]
    colours = dict(re.findall(r"(--\w+): (#\w+);", block))
    for ground in ("--paper", "--raised", "--sunk"):
        for name in ("--ink", "--soft", "--accent", "--good", "--bad"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for number in range(8):
        assert contrast(colours[f"--s{number}"], colours["--paper"]) >= 4.5
    assert contrast(colours["--firm"], colours["--paper"]) >= 3  # borders of what can be pressed
    assert contrast(colours["--soft"], colours["--wash"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2."""

    def light(colour: str) -> float:
        parts_ = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts_]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_another_form_is_refused(tmp_path: Path) -> None:
    comparison = sample()
    comparison["format"] = 99
    with pytest.raises(PrunusFileError, match="no comparison of form 1 .found 99"):
        write_page(comparison, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "comparison.json"
    source.write_text(_sample_text(), encoding="utf-8")
    assert main([str(source), str(tmp_path / "page.html")]) == 0
    assert re.search(r"page\.html: \d\.\d MB", capsys.readouterr().out)
    assert (tmp_path / "page.html").read_text("utf-8") == page()
    assert main([str(tmp_path / "none.json"), str(tmp_path / "other.html")]) == 1
    assert "cannot read the comparison" in capsys.readouterr().err
    source.write_text("[]", encoding="utf-8")
    assert main([str(source), str(tmp_path / "other.html")]) == 1
    assert "is no comparison: prunus compare writes one" in capsys.readouterr().err
