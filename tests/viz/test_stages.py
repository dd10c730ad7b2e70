"""Panels of attention that was edited, of filters and of the vision exit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from prunus.grid import Grid
from prunus.method import Edit
from prunus.viz import Panel, dim_dropped, fold, heat_map, outlined, trace_panels
from tests.support.traces import EXIT, FILTER, GONE, GRID, entry, picture, shallow

MARK = np.array([0.1, 1.0, 0.9], dtype=np.float32)


def titles(row: list[Panel]) -> list[str]:
    return [panel.title for panel in row]


def marked(drawn: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The cells with a pixel of an outline."""
    found = (np.abs(drawn - MARK) < 1e-6).all(axis=-1)
    return np.flatnonzero(found.reshape(2, 8, 3, 10).any(axis=(1, 3)))


def test_an_outline_lies_inside_of_its_tokens_and_around_all_of_them() -> None:
    drawn = outlined(picture(), [0, 1, 3], GRID)
    line = (drawn == MARK).all(axis=-1)
    assert marked(drawn).tolist() == [0, 1, 3]
    assert line[0, :20].all() and line[:16, 0].all()  # at the border of the picture, too
    assert not line[1:7, 9:11].any()  # none between 0 and 1, but the corner that both share with 4
    assert line[7, 10:20].all() and line[8:, 9].all() and line[7, 9]
    np.testing.assert_array_equal(drawn[~line], picture()[~line])
    np.testing.assert_array_equal(outlined(picture(), [], GRID), picture())


def test_sizes_as_colours() -> None:
    drawn = heat_map(picture(), [4.0, 1.0, 0.0, GONE, 1.0, 9.0], GRID, most=4.0)
    light = drawn.reshape(2, 8, 3, 10, 3).mean(axis=(1, 3, 4)).reshape(-1)
    assert light[0] > light[1] > light[2] and light[5] > light[1]
    plain = heat_map(np.zeros((16, 30, 3), dtype=np.float32), [0.0] * 6, GRID, most=0.0)
    assert plain.max() < 0.02
    with pytest.raises(ValueError, match="grid of 6"):
        heat_map(picture(), [1.0], GRID, most=1.0)


def test_the_three_stages() -> None:
    seen = picture()
    [row] = trace_panels([[seen]], [shallow(), FILTER, EXIT])
    assert titles(row) == [
        "as the model saw it",
        "visipruner: attention, layers 0-1",
        "layer 3 chose 2 of 6 (filter)",
        "visipruner: 2 of 6 kept, layer 4",
        "vision leaves before layer 9 (exit)",
    ]
    _, first, filtered, kept, left = row
    np.testing.assert_array_equal(first.picture, outlined(seen, [0], GRID))
    assert first.caption == (
        "Layer 0: text sees one visual token (outlined) with the weight of all, visual tokens do "
        "not see each other.\nLayer 1: text does not look at the image."
    )
    heat = heat_map(seen, [0.1, 0.2, 0.9, 0.5, 0.0, 0.1], GRID, most=0.9)
    np.testing.assert_allclose(filtered.picture, outlined(heat, [2, 3], GRID), atol=1e-6)
    assert "layer 3" in filtered.caption
    np.testing.assert_array_equal(kept.picture, dim_dropped(seen, [2, 3], GRID))
    assert kept.caption == "Filtering layer 3; the others are gone from layer 4 on."
    np.testing.assert_array_equal(left.picture, dim_dropped(seen, [], GRID))
    assert left.caption == "Exit layer 8: none of the 2 visual tokens mattered any more."


def test_many_stages_go_on_below() -> None:
    """The picture and three pairs in the first row, then three pairs in each; nothing is lost."""
    for pairs in (0, 3, 4, 11):
        row = [Panel(picture(), str(number)) for number in range(1 + 2 * pairs)]
        folded = fold(row)
        assert [panel for part in folded for panel in part] == row
        assert len(folded[0]) <= 7 and all(len(part) in (2, 4, 6) for part in folded[1:])
        assert len(folded) == max(1, -(-pairs // 3))


def test_a_method_that_merges_and_decides_by_itself() -> None:
    mix = [(torch.tensor([2, 2]), torch.tensor([1, 2]), torch.tensor([0.5, 0.5]))]
    into = [torch.tensor([-1, 2, 2, 3, -1, -1])]
    merging = entry(
        [[2, 3]], "merging", [[0.1, 0.2, 0.9, 0.5, 0.0, 0.1]], mix=[mix], merged_into=[into]
    )
    [[_, chosen, left]] = trace_panels([[picture()]], [merging])
    assert chosen.title == "layer 3 chose 2 of 6 (merging)"
    assert chosen.caption == "Colour: the score of visipruner (square root). Outlined: chosen."
    assert left.caption == (
        "Merging layer 3; the others are merged or gone from layer 4 on.\n"
        "1 as they were; 1 made of several (blue borders, mean colour); 3 gone (grey)."
    )
    assert "moves without a token" in trace_panels([[picture()]], [FILTER])[0][1].caption


def test_deep_alone_and_a_filter_that_keeps_nothing() -> None:
    exit_only = entry([[]], "exit", [[0.1] * 6], layer=9)
    [row] = trace_panels([[picture()]], [exit_only])
    assert titles(row)[1:] == ["vision leaves before layer 9 (exit)"]
    assert "none of the 6" in row[1].caption
    nothing = entry([[]], "forced", [[0.1] * 6])
    [row] = trace_panels([[picture()]], [nothing])
    assert titles(row)[1:] == ["layer 3 chose 0 of 6 (forced)", "visipruner: 0 of 6 kept, layer 4"]
    assert row[2].caption == "Forced filtering layer 3; all are gone from layer 4 on."


@pytest.mark.parametrize("trace", [[], [entry([list(range(6))], "")]])
def test_where_nothing_was_removed_the_panel_says_so(trace: list) -> None:  # type: ignore[type-arg]
    rows = trace_panels([[picture()], [picture()]] if not trace else [[picture()]], trace)
    assert all(len(row) == 1 for row in rows)
    assert rows[0][0].caption == "No visual token was removed."


def test_edits_alone() -> None:
    knockout = shallow(
        edits={2: Edit("half"), 3: Edit("half"), 4: Edit("keep", "cut")}, forgets=(0, 2)
    )
    [row] = trace_panels([[picture()]], [replace(knockout, layer=0, method="knockout")])
    assert titles(row)[1:] == ["knockout: attention, layers 0, 2-4"]
    assert row[1].caption.splitlines() == [
        "Layers 2-3: text looks at the last half of the visual tokens only.",
        "Layer 4: visual tokens do not see each other.",
        "No visual tokens in the cache of layers 0, 2 while it answers.",
        "No visual token was removed.",
    ]
    np.testing.assert_array_equal(row[1].picture, picture())
    [row] = trace_panels([[picture()]], [shallow(edits={}, forgets=(1,))])
    assert titles(row)[1:] == ["visipruner: cache, layer 1"]


@pytest.mark.parametrize(("sink", "image", "token"), [(0, 0, 0), (8, 1, 2), (-1, 1, 5)])
def test_the_sink_is_one_of_all_images_tokens(sink: int, image: int, token: int) -> None:
    rows = trace_panels([[picture()], [picture()]], [shallow(2, sink)])
    for number, row in enumerate(rows):
        wanted = [token] if number == image else []
        np.testing.assert_array_equal(row[1].picture, outlined(picture(), wanted, GRID))
    assert rows[0][1].caption and not rows[1][1].caption  # said once


def test_images_share_one_scale_and_one_fate() -> None:
    scores = [[0.1, 0.2, 0.9, 0.5, 0.0, 0.1], [0.0, 0.3, 0.0, 0.0, 0.0, 0.0]]
    rows = trace_panels([[picture()], [picture()]], [entry([[2, 3], []], "filter", scores)])
    assert [row[1].title for row in rows] == [
        "layer 3 chose 2 of 6 (filter)",
        "layer 3 chose 0 of 6 (filter)",
    ]
    assert rows[0][1].caption.endswith("Outlined: chosen, 2 in all.")
    np.testing.assert_allclose(
        rows[1][1].picture, heat_map(picture(), scores[1], GRID, most=0.9), atol=1e-6
    )


def test_slices_of_a_video() -> None:
    grid = Grid(2, 1, 3, (16, 10))
    chosen = entry([[2, 3]], "filter", [[0.1, 0.2, 0.9, 0.5, 0.0, 0.1]], grid=grid)
    rows = trace_panels([[picture(), picture()]], [shallow(sink=4, grid=grid), chosen])
    assert [row[3].title for row in rows] == ["visipruner: 1 here, 2 of 6 kept, layer 4"] * 2
    np.testing.assert_array_equal(rows[0][1].picture, picture())
    np.testing.assert_array_equal(rows[1][1].picture, outlined(picture(), [4], grid, 1))


def test_events_of_other_samples_are_left_out() -> None:
    every = list(range(6))
    scores = [[[0.1] * 6], [[0.2] * 6]]
    trace = [
        entry([[[1]], [every]], ["filter", ""], scores),
        entry([[[1]], [[5]]], ["", "filter"], [[[GONE, 0.1] + [GONE] * 4], [[0.3] * 6]], layer=6),
    ]
    for sample, layer in ((0, 3), (1, 5)):
        [row] = trace_panels([[picture()]], trace, sample)
        assert titles(row)[1:] == [
            f"layer {layer} chose 1 of 6 (filter)",
            f"visipruner: 1 of 6 kept, layer {layer + 1}",
        ]


def test_behind_a_merge_in_the_tower() -> None:
    into = torch.tensor([0, 0, 2, 0, 4, 2])
    tower = entry([[0, 2, 4]], layer=None, place="encoder", merged_into=[[into]])
    chosen = entry([[0]], "filter", [[3.0, GONE, 2.0, GONE, 1.0, GONE]])
    [row] = trace_panels([[picture()]], [shallow(sink=1), tower, chosen])
    assert titles(row)[1:] == [
        "visipruner: 3 of 6 left, merged, encoder",
        "visipruner: attention, layers 0-1",
        "layer 3 chose 1 of 3 (filter)",
        "visipruner: 1 of 6 kept, layer 4",
    ]
    assert marked(row[2].picture).tolist() == [2, 5]  # the second survivor, and what it stands for
    assert marked(row[3].picture).tolist() == [0, 1, 3]
    np.testing.assert_array_equal(row[4].picture, dim_dropped(picture(), [0, 1, 3], GRID))


def test_edits_behind_a_cut_show_what_was_there() -> None:
    late = replace(shallow(edits={6: Edit("cut")}), layer=6)
    [row] = trace_panels([[picture()]], [late, FILTER])
    assert row[-1].title == "visipruner: attention, layer 6"
    np.testing.assert_array_equal(row[-1].picture, dim_dropped(picture(), [2, 3], GRID))
