"""The frame of a picture: titles, marks of answers, the key of colours, room for every shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from prunus.cli.asking import layout
from prunus.results.trace import TraceEntry
from prunus.viz import Key, Panel, draw_panels
from tests.viz.test_overlay import entry


def panel(height: int, width: int) -> Panel:
    return Panel(np.full((height, width, 3), 0.5, dtype=np.float32), "seen")


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is written on figures besides titles of panels, with its colour."""
    seen: list[tuple[str, Any]] = []
    real = Figure.text

    def spy(self: Figure, x: float, y: float, text: str, **options: Any) -> Any:
        seen.append((text, options.get("color")))
        return real(self, x, y, text, **options)

    monkeypatch.setattr(Figure, "text", spy)
    return seen


@pytest.mark.parametrize(
    ("shape", "beside", "at_least"),
    [((336, 336), 7, 2.6), ((56, 448), 1, 7.0), ((168, 448), 3, 4.0), ((448, 56), 7, 2.6)],
)
def test_every_shape_has_room(shape: tuple[int, int], beside: int, at_least: float) -> None:
    size, most, tallest = layout([panel(*shape)])
    assert most == beside and size >= at_least
    assert size * most <= 19 or most == 1
    high = size * min(tallest, shape[0] / shape[1])
    assert size * size >= 6.7 and high >= 0.9  # inches: no picture becomes a line


def test_right_and_wrong_answers_are_marked(tmp_path: Path, texts: list[tuple[str, Any]]) -> None:
    marked = Panel(panel(9, 9).picture, "", "1. two\n2. red\nsaid", (True, False, None))
    draw_panels([[marked]], tmp_path / "a.png", title="how many?\ntiny, clse: 9 -> 3")
    said = dict(texts)
    assert {"\u2713 1. two", "\u2717 2. red", "said", "how many?"} <= set(said)
    assert said["\u2713 1. two"] != said["\u2717 2. red"] and said["said"] == "black"


def test_a_long_title_is_broken_and_whole(tmp_path: Path, texts: list[tuple[str, Any]]) -> None:
    question = " ".join(["why"] * 60)
    draw_panels([[panel(9, 9)]], tmp_path / "a.png", title=question)
    assert len(texts) > 3 and " ".join(text for text, _ in texts) == question


def test_the_key_names_what_is_there(tmp_path: Path, texts: list[tuple[str, Any]]) -> None:
    dropped: TraceEntry = entry([0, 1, 2], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert Key.of([dropped]) == Key(heat=True, gone=True)
    assert Key.of([]) == Key()
    whole = Key(True, True, True)
    assert len(whole.lines(20.0)) == 1 and len(whole.lines(4.0)) == 3
    plain = draw_panels([[panel(9, 9)]], tmp_path / "plain.png")
    keyed = draw_panels([[panel(9, 9)]], tmp_path / "keyed.png", key=whole)
    assert [text for text, _ in texts if "least to most important" in text]
    with Image.open(plain) as one, Image.open(keyed) as other:
        assert other.height > one.height


def test_dark_pictures_are_light_on_dark(tmp_path: Path) -> None:
    path = draw_panels([[panel(9, 9)]], tmp_path / "a.png", title="above", dark=True)
    with Image.open(path) as image:
        assert image.convert("RGB").getpixel((1, 1)) == (13, 17, 23)
