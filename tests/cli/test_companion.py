"""CDPruner with a CLIP beside the model, from disk, by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chat_models import tiny_llava
from tests.support.clip import saved_clip
from tests.support.command_line import Cli, refused


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A LLaVA, and the CLIP that its tower is of."""
    model, processor = tiny_llava()
    own, beside = tmp_path_factory.mktemp("llava"), tmp_path_factory.mktemp("clip")
    saved_clip(beside, model.model.vision_tower)
    model.save_pretrained(own)
    processor.save_pretrained(own)
    return own, beside


def test_a_question_chooses_by_the_companion(
    cli: Cli, picture: Path, folders: tuple[Path, Path]
) -> None:
    own, beside = folders
    settings = ("--method", "cdpruner", "--keep", "4", "--model", own, "--max-new-tokens", "2")
    asked = ("run", picture, "--prompt", "which digit is red", *settings, "--json")
    found = cli(*asked, "--param", f"companion={beside}").json
    alone = cli(*asked).json
    assert found["tokens"]["kept"] == alone["tokens"]["kept"] == 4
    assert found["params"]["companion"] == str(beside)
    assert found["flops"]["pruned"]["method"] > alone["flops"]["pruned"]["method"]


def test_a_folder_without_a_clip_is_refused(
    cli: Cli, picture: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    asked = ("run", picture, "--prompt", "what", "--method", "cdpruner", "--model", folders[0])
    refused(cli(*asked, "--param", f"companion={tmp_path}"), "companion")
