"""``prunus run`` with methods that decide for themselves: text, JSON and pictures."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunus.cli.console import plain_warnings
from prunus.cli.demo import Column, _panels
from prunus.evaluate import pictures
from prunus.evaluate.cells import Cell
from prunus.inference.answer import Answer
from prunus.results.report import Report
from prunus.viz import dim_dropped, draw_panels
from tests.support.command_line import Cli
from tests.support.qwen_processor import save_qwen
from tests.support.traces import EXIT, FILTER, GRID, entry, shallow
from tests.support.traces import picture as sketch

ASK = ("--prompt", "how many objects are there?", "--max-new-tokens", 2)
KEYS = ["method", "label", "layer_seen", "removed_from_layer", "kept"]


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    save_qwen(folder)
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The titles of the panels of each row of each figure, and its strip."""
    seen: list[Any] = []

    def spy(rows: Any, path: Path, **options: Any) -> Path:
        seen.append(([[panel.title for panel in row] for row in rows], options["strip"]))
        return draw_panels(rows, path, **options)

    monkeypatch.setattr("prunus.viz.draw_panels", spy)
    return seen


def params(**values: object) -> list[str]:
    return [part for key, value in values.items() for part in ("--param", f"{key}={value}")]


def stages(facts: Any) -> tuple[int, int, int, list[str]]:
    """Filtering layer, tokens kept and exit layer, and the titles that they make."""
    first, last = facts["events"]
    assert list(first) == list(last) == KEYS
    assert (first["label"], last["label"], last["kept"]) == ("filter", "exit", 0)
    at, kept, out = first["layer_seen"], first["kept"], last["layer_seen"]
    original = facts["tokens"]["original"]
    assert first["removed_from_layer"] == at + 1 and last["removed_from_layer"] == out + 1
    depth = len(facts["per_layer"])
    assert facts["per_layer"] == (
        [original] * (at + 1) + [kept] * (out - at) + [0] * (depth - out - 1)
    )
    titles = [
        f"layer {at} chose {kept} of {original} (filter)",
        f"visipruner: {kept} of {original} kept, layer {at + 1}",
        f"vision leaves before layer {out + 1} (exit)",
    ]
    return at, kept, out, titles


def test_three_stages_on_the_built_in_model(
    cli: Cli, picture: Path, tmp_path: Path, drawn: list[Any]
) -> None:
    overlay = tmp_path / "stages.png"
    run = ("run", picture, *ASK, "--method", "visipruner", "--save-overlay", overlay)
    run = (*run, *params(layer_threshold=2, exit_threshold=0.9, exit_count=1))
    facts = cli(*run, "--json").json
    at, kept, out, titles = stages(facts)
    assert 0 < kept < 576 and facts["idle"] == 0
    assert 0 < facts["visual_attention"]["ratio"] < 1 and "visipruner" in facts["published"]
    [([row], strip)] = drawn
    assert row == ["as the model saw it", "visipruner: attention, layers 0-1", *titles]
    assert list(strip.counts) == facts["per_layer"] and strip.blind == {0, 1}
    with Image.open(overlay) as image:
        assert image.width > 2 * image.height
    result = cli(*run)
    assert result.err == ""
    assert f"visipruner: filtering layer {at}, {kept} of 576 visual tokens stay" in result.out
    assert f"visipruner: exit layer {out}, 0 of {kept} visual tokens stay, all are" in result.out
    assert f"0-{at}: 576, " in result.out and "-11: 0 visual tokens" in result.out


def test_an_image_and_a_video_on_qwen(
    cli: Cli, qwen_folder: Path, picture: Path, tmp_path: Path, drawn: list[Any]
) -> None:
    videos: list[object] = []
    for number in range(4):
        path = tmp_path / f"frame{number}.png"
        Image.new("RGB", (64, 48), (60 * number, 10, 200)).save(path)
        videos += ["--video", path]
    facts = cli(
        *("run", picture, *videos, "--model", qwen_folder, *ASK, "--method", "visipruner"),
        *params(layer_threshold=2, min_tokens=40, exit_threshold=-1, exit_count=1, sink=101),
        *("--save-overlay", tmp_path / "stages.png", "--source-fps", 2, "--json"),
    ).json
    assert facts["tokens"]["original"] == 100 + 2 * 48
    at, kept, out, _ = stages(facts)
    assert (at, out) == (2, 3) and 40 <= kept < 196
    [(rows, strip)] = drawn
    stages_of_the_image, frames = rows
    assert stages_of_the_image[0] == "image 1" and len(stages_of_the_image) == 5
    assert stages_of_the_image[-1] == "vision leaves before layer 4 (exit)"
    times, counts = zip(*(title.split(": ") for title in frames), strict=True)
    assert times == ("0.0 s", "0.5 s", "1.0 s", "1.5 s") and strip.blind == {0}
    left = [int(count.removesuffix(" of 48")) for count in counts]
    assert left[0] == left[1] and left[2] == left[3]  # of the filtering layer: then all leave
    assert 0 < left[0] + left[2] <= kept
    assert [part["kept"] for part in facts["videos"][0]["slices"]] == [0, 0]


@pytest.mark.parametrize(
    ("options", "panels", "counts"),
    [
        (["--method", "knockout", *params(layers="0,3", mask="both")], 2, "0-11: 576"),
        (["--method", "visipruner", *params(stages="shallow")], 2, "0-11: 576"),
        (
            ["--method", "visipruner", *params(stages="deep", exit_threshold=-1, late_layer=5)],
            2,
            "0-6: 576, 7-11: 0",
        ),
        (["--method", "none"], 1, "0-11: 576"),
        (["--method", "clse", "--keep", 64], 3, "0: 576, 1-11: 64"),
    ],
)
def test_fewer_stages(
    cli: Cli,
    picture: Path,
    tmp_path: Path,
    drawn: list[Any],
    options: list[object],
    panels: int,
    counts: str,
) -> None:
    result = cli("run", picture, *ASK, *options, "--save-overlay", tmp_path / "few.png")
    assert result.code == 0 and result.err == ""
    assert f"per layer       {counts} visual tokens" in result.out
    assert [len(row) for row in drawn[0][0]] == [panels]


def test_behind_evoprune(cli: Cli, picture: Path, tmp_path: Path, drawn: list[Any]) -> None:
    facts = cli(
        *("run", picture, *ASK, "--method", "evoprune+visipruner", "--json"),
        *params(**{"evoprune.keep": 0.25, "visipruner.layer_threshold": 2}),
        *("--save-overlay", tmp_path / "both.png"),
    ).json
    at, kept = facts["events"][0]["layer_seen"], facts["events"][0]["kept"]
    assert facts["per_layer"][0] == 144 and facts["per_layer"][at + 1] == kept
    [([row], _)] = drawn
    assert row[1:6] == [
        "importance, encoder",
        "evoprune: 144 of 576 left, merged, encoder",
        "visipruner: attention, layers 0-1",
        f"layer {at} chose {kept} of 144 (filter)",
        f"visipruner: {kept} of 576 kept, layer {at + 1}",
    ]


@pytest.mark.parametrize("stages", ["middle,deep", "shallow,middle,deep"])
def test_where_nothing_happened_it_is_said_once(
    cli: Cli, qwen_folder: Path, picture: Path, tmp_path: Path, drawn: list[Any], stages: str
) -> None:
    idle = ("run", picture, "--model", qwen_folder, *ASK, "--method", "visipruner")
    idle = (*idle, *params(stages=stages, layer_threshold=-1))
    idle = (*idle, "--save-overlay", tmp_path / "idle.png")
    words = "found nothing to do"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        plain_warnings()
        text = cli(*idle)
        assert text.err == "" and text.out.count(words) == 1
        assert "decided" not in text.out and "0-4: 100 visual tokens" in text.out
        spoken = cli(*idle, "--json")
    assert json.loads(spoken.out)["idle"] == 1 and spoken.json["events"] == []
    assert spoken.err.count(words) == 1 and spoken.err.count("\n") == 1
    assert [len(row) for row in drawn[0][0]] == [1 + ("shallow" in stages)]


def test_the_demo_wants_a_budget(cli: Cli) -> None:
    result = cli("demo", "--method", "visipruner")
    assert result.code == 2 and "prunus run --method visipruner" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("trace", "title", "kept"),
    [
        ([], "nothing removed", None),
        ([shallow()], "nothing removed", None),
        ([shallow(), FILTER], "2 of 6 kept", [2, 3]),
        ([shallow(), FILTER, EXIT], "0 of 6 kept", []),
        ([entry([[]], "exit", [[0.1] * 6], layer=9)], "0 of 6 kept", []),
    ],
)
def test_any_trace_can_be_drawn(trace: Any, title: str, kept: list[int] | None) -> None:
    image = sketch()
    expected = image if kept is None else dim_dropped(image, kept, GRID)
    scored = any(one.scores is not None for one in trace)
    columns = [
        Column(None, [Answer("yes", 1, Report())]),
        Column(0.5, [Answer("no", 1, Report(), trace)]),
    ]
    panels = _panels(image, [("?", "yes")], columns)
    assert len(panels) == 2 + scored and panels[-1].title == f"50 %: {title}"
    np.testing.assert_array_equal(panels[-1].picture, expected)
    panels = pictures._panels(image, Cell("visipruner"), trace, "right")
    left = "all" if kept is None else len(kept)
    assert len(panels) == 1 + scored and panels[-1].title == f"visipruner: {left} left"
    np.testing.assert_array_equal(panels[-1].picture, expected)
