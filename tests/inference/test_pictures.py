"""Images by the names that commands take: files, drawn scenes, and photographs."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from prunus.errors import PrunusError
from prunus.inference.pictures import is_drawn, open_pictures
from prunus.tasks.evalset import load_evalset
from prunus.tasks.photographs import PHOTOGRAPHS, photograph
from prunus.tasks.sample import load_sample
from prunus.tasks.scenes import render
from tests.support.command_line import Cli, refused


def test_scenes_and_files_in_their_order(picture: Path) -> None:
    found = open_pictures([picture, "builtin:7", Path("builtin:0")])
    wanted = [load_sample()[0], *(render(load_evalset()[number].scene) for number in (7, 0))]
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("name", ["builtin:500", "builtin:-1", "builtin:x", "builtin:"])
def test_there_are_five_hundred(name: str) -> None:
    with pytest.raises(PrunusError, match="no built-in image .* builtin:0 to builtin:499"):
        open_pictures([name])


@pytest.mark.parametrize("name", sorted(PHOTOGRAPHS))
def test_photographs_are_small_pictures_of_many_colours(name: str, picture: Path) -> None:
    first, found = open_pictures([picture, name])
    assert first.size == load_sample()[0].size
    assert found.mode == "RGB" and found.tobytes() == photograph(name).tobytes()
    assert 256 <= max(found.size) <= 480 and min(found.size) >= 256
    colours = found.getcolors(maxcolors=1 << 18)
    assert colours is not None and len(colours) > 10_000  # a drawn scene has a handful
    shipped = files("prunus.tasks").joinpath(f"data/photographs/{name[len('builtin:') :]}.jpg")
    assert len(shipped.read_bytes()) <= 60_000
    assert not is_drawn(name) and is_drawn("builtin:7")


def test_photographs_are_named_where_a_name_is_wrong() -> None:
    with pytest.raises(PrunusError, match="photographs: builtin:cat, builtin:coffee"):
        open_pictures(["builtin:dog"])


def test_every_photograph_that_ships_has_a_name_a_source_and_a_licence() -> None:
    shipped = {one.name for one in files("prunus.tasks").joinpath("data/photographs").iterdir()}
    assert shipped == {f"{name.removeprefix('builtin:')}.jpg" for name in PHOTOGRAPHS}
    notice = (Path(__file__).parents[2] / "NOTICE").read_text("utf-8")
    assert [one for one in sorted(shipped) if one not in notice] == []


def test_a_photograph_on_the_command_line(cli: Cli, tmp_path: Path) -> None:
    drawn = tmp_path / "kept.png"
    asked = ("run", "builtin:coffee", "--prompt", "how many objects are there?", "--keep", 64)
    result = cli(*asked, "--save-overlay", drawn, "--json")
    assert result.json["tokens"]["kept"] == 64 and drawn.stat().st_size
    [note] = result.json["notes"]
    assert "knows drawn scenes only" in note


def test_on_the_command_line(cli: Cli, tmp_path: Path) -> None:
    asked = load_evalset()[3].questions[0]
    drawn = tmp_path / "kept.png"
    result = cli("run", "builtin:3", "--prompt", asked.text, "--keep", 0.5, "--json")
    assert result.json["images"] == ["builtin:3"]
    assert result.json["answer"] == asked.answer
    assert result.json["notes"] == [] and result.err == ""  # the model knows such scenes
    assert cli("run", "builtin:3", "--prompt", "a", "--save-overlay", drawn).code == 0
    assert drawn.stat().st_size
    refused(cli("run", "builtin:999", "--prompt", "a"), "builtin:499")
