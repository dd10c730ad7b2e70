"""Images by the names that commands take: files, and drawn scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunus.errors import PrunusError
from prunus.inference.pictures import open_pictures
from prunus.tasks.evalset import load_evalset
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
