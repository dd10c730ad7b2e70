"""The strip of visual tokens per decoder layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from prunus.viz import Panel, Strip, draw_panels
from prunus.viz.strip import draw_strip
from tests.support.traces import EXIT, FILTER, picture, shallow


def test_only_where_layers_differ() -> None:
    assert Strip.of([], [576] * 4) is None
    assert Strip.of([FILTER], [6, 2]) == Strip([6, 2])
    assert Strip.of([shallow(), FILTER, EXIT], [6, 6, 2]) == Strip([6, 6, 2], frozenset({0, 1}))
    assert Strip.of([shallow()], [6, 6, 6]) == Strip([6, 6, 6], frozenset({0, 1}))


def test_a_bar_per_layer_with_its_number_where_it_changes() -> None:
    axis = Figure().add_subplot()
    draw_strip(axis, Strip([576] * 19 + [12] * 9 + [0] * 4, frozenset(range(6))), 6.5)
    assert [round(bar.get_height()) for bar in axis.patches] == [576] * 19 + [12] * 9 + [0] * 4
    assert len({bar.get_facecolor() for bar in axis.patches[:6]}) == 1
    assert axis.patches[5].get_facecolor() != axis.patches[6].get_facecolor()
    assert [text.get_text() for text in axis.texts] == ["576", "12", "0"]
    crowded = Figure().add_subplot()
    draw_strip(crowded, Strip([300 - layer for layer in range(40)]), 2.6)
    assert 3 < len(crowded.texts) < 12 and len(crowded.get_xticks()) <= 11


def test_below_the_panels(tmp_path: Path) -> None:
    panels = [[Panel(picture(), "a")] * 3]
    sizes = []
    for name, strip in (("without", None), ("with", Strip([6, 6, 2, 0]))):
        with Image.open(draw_panels(panels, tmp_path / f"{name}.png", strip=strip)) as drawn:
            sizes.append(drawn.size)
            pixels = np.asarray(drawn.convert("RGB"))
    assert sizes[0][0] == sizes[1][0] and 200 < sizes[1][1] - sizes[0][1] < 300
    assert (pixels[sizes[0][1] :] != 255).any()
