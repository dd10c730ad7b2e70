"""The first picture of the readme: what it shows is what the four systems do at one budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tools import hero

ROOT = Path(__file__).resolve().parents[2]


def test_four_systems_at_one_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    real = hero.draw_panels

    def spy(rows: Any, path: Path, **options: Any) -> Path:
        drawn.append((rows, options))
        return real(rows, path, **options)

    seen: list[list[hero.System]] = []
    ask = hero.asked

    def watched(*given: Any) -> list[hero.System]:
        seen.append(ask(*given))
        return seen[-1]

    monkeypatch.setattr(hero, "draw_panels", spy)
    monkeypatch.setattr(hero, "asked", watched)
    light, dark = hero.draw(tmp_path)
    averages = [one.average for one in seen[0]]
    assert max(averages) - min(averages) <= 1.0  # tokens: the others' is a whole number
    assert 0 < averages[0] < 576 / 2
    [[first, *systems]] = drawn[0][0]
    names = [panel.title.partition(":")[0] for panel in systems]
    assert names == ["CLSE", "EvoPrune", "VisiPruner", "Stepwise"] and len(first.caption) > 50
    for panel, system in zip(systems, seen[0], strict=True):
        said = [line.partition(". ")[2] for line in panel.caption.splitlines()]
        assert said == [answer.text for answer in system.answers]
        assert panel.right == [one == true for one, true in zip(said, TRUE, strict=True)]
    for path, corner in ((light, (255, 255, 255)), (dark, (13, 17, 23))):
        with Image.open(path) as image:
            assert image.convert("RGB").getpixel((1, 1)) == pytest.approx(corner, abs=2)


TRUE = ("above", "two", "5")


def test_the_readme_shows_it_small_enough() -> None:
    told = (ROOT / "README.md").read_text()
    for name in ("light", "dark"):
        assert f"docs/img/hero-{name}.png" in told
        assert (ROOT / "docs" / "img" / f"hero-{name}.png").stat().st_size <= 300_000
