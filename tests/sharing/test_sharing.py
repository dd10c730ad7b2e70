"""Selectors and calibrations on a hub that is a folder here, their pages, and what is refused."""

from __future__ import annotations

import fnmatch
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

import prunus
from prunus import PrunusError, Stepwise
from prunus.families import family_of
from prunus.method.calibration import Calibration, made_on
from prunus.selector.store import CARD, WEIGHTS, Card, load_selector, save_selector
from prunus.sharing import from_pretrained, pack, page_of, push_to_hub
from tests.support.command_line import Cli
from tests.support.llava import DEPTH
from tests.support.models import Case, case_of
from tests.support.random_selectors import selector_for

NAME = "me/my-selector"
PARAMS = {"tokens_threshold": 0.25, "layer_threshold": 0.995, "shallow_layers": 1}
HOME = "/home/somebody/secret-models/llava-1.5-7b-hf"


@pytest.fixture(scope="module")
def case() -> Case:
    return case_of("llava-clip")


@pytest.fixture
def selector(tmp_path: Path, case: Case) -> Path:
    made, _ = selector_for(family_of(case.model))
    training = {"data": "/home/somebody/mine.jsonl", "steps": 7, "held_out": {"accuracy": 0.8125}}
    card = Card(HOME, family_of(case.model).fingerprint().tolist(), None, training, {"0.11": -1.5})
    save_selector(tmp_path / "made", made, card)
    return tmp_path / "made"


@pytest.fixture
def calibration(tmp_path: Path, case: Case) -> Path:
    about = made_on(family_of(case.model))
    Calibration("visipruner", HOME, DEPTH, PARAMS, {"prompts": 7}, about).save(tmp_path / "c.json")
    return tmp_path / "c.json"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What huggingface_hub would do, done to folders."""
    place = tmp_path / "hub"

    class Api:
        endpoint = "https://hub.example"

        def __init__(self, token: str | None = None) -> None:
            assert token in (None, "mine")

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            (place / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            (place / repo_id / ".private").write_text(str(private))

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
            shutil.copytree(folder_path, place / repo_id, dirs_exist_ok=True)
            assert commit_message

    def download(name: str, *, revision: Any, token: Any, allow_patterns: list[str]) -> str:
        if not (place / name).is_dir():
            raise FileNotFoundError(f"404: {name}")
        for file in (place / name).iterdir():
            if not any(fnmatch.fnmatch(file.name, one) for one in allow_patterns):
                file.unlink()
        return str(place / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return place


def test_a_selector_there_and_back(hub: Path, selector: Path, case: Case) -> None:
    assert push_to_hub(selector, NAME, token="mine") == f"https://hub.example/{NAME}"
    found = from_pretrained(NAME)
    model = family_of(case.model)
    there, card = load_selector(found, model)
    here, _ = load_selector(selector, model)
    weights = here.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in there.state_dict().items())
    assert card.biases == {"0.11": -1.5} and card.model == "llava-1.5-7b-hf"
    with prunus.prune(case.model, Stepwise(selector=found)), torch.no_grad():
        case.model(**case.prompts.rows(2))


def test_a_calibration_there_and_back(hub: Path, calibration: Path, case: Case) -> None:
    push_to_hub(calibration, "me/mine", private=True)
    assert (hub / "me/mine/.private").read_text() == "True"
    found = from_pretrained("me/mine", revision="main")
    assert Calibration.load(found).params == PARAMS
    with prunus.prune(case.model, "visipruner", calibration=found):
        pass  # it fits


def test_no_path_of_this_machine_is_sent(hub: Path, selector: Path, calibration: Path) -> None:
    push_to_hub(selector, NAME)
    push_to_hub(calibration, "me/mine")
    sent = [file for file in hub.rglob("*") if file.is_file() and file.name != WEIGHTS]
    assert len(sent) == 6
    for file in sent:
        text = file.read_text("utf-8")
        assert "/home" not in text and "somebody" not in text and "secret" not in text, file
    assert json.loads((selector / CARD).read_text())["model"] == HOME  # it stays where it is


def test_a_page_says_what_it_is_for(selector: Path, calibration: Path) -> None:
    page = page_of(pack(selector), NAME)
    head, text = page.removeprefix("---\n").split("---\n", 1)
    assert "library_name: prunus" in head
    assert "llava-1.5-7b-hf" in text and pack(selector).fingerprint in text
    assert "| data | mine.jsonl |" in text and "| held_out, accuracy | 0.8125 |" in text
    assert "| 0.11 | -1.5 |" in text and f'from_pretrained("{NAME}")' in text
    other = page_of(pack(calibration), NAME)
    assert "| tokens_threshold | 0.25 |" in other and "calibration=file" in other
    assert len(pack(calibration).fingerprint) == 12
    assert pack(calibration).fingerprint == pack(selector).fingerprint  # of the same weights


def test_other_weights_have_another_fingerprint(selector: Path) -> None:
    before = pack(selector).fingerprint
    card = json.loads((selector / CARD).read_text())
    card["fingerprint"][0][0] += 1.0
    (selector / CARD).write_text(json.dumps(card))
    assert pack(selector).fingerprint != before


@pytest.mark.parametrize("name", ["mine", "", "/me/mine", "./me", "me/a/b", "~/mine", "me/"])
def test_what_is_no_name_is_refused_before_anything(name: str, selector: Path) -> None:
    with pytest.raises(PrunusError, match="no name on the hub"):
        push_to_hub(selector, name)
    with pytest.raises(PrunusError, match="no name on the hub"):
        from_pretrained(name)


def test_what_is_neither_is_not_sent(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(PrunusError, match="nothing to share in"):
        push_to_hub(tmp_path / "nowhere", NAME)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(PrunusError, match="is no calibration"):
        push_to_hub(tmp_path / "x.json", NAME)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / CARD).write_text("{}")
    (broken / WEIGHTS).write_bytes(b"")
    with pytest.raises(PrunusError, match="no selector's card"):
        push_to_hub(broken, NAME)
    assert not hub.exists()


def test_card_and_weights_that_do_not_belong_together_are_not_sent(
    hub: Path, selector: Path, tmp_path: Path, case: Case
) -> None:
    other, _ = selector_for(family_of(case.model))
    with torch.no_grad():
        next(other.parameters()).add_(1)
    save_selector(tmp_path / "other", other, Card(HOME, [[1.0]], None))
    kept = (selector / WEIGHTS).read_bytes()
    half = kept[: len(kept) // 2]
    for content, words in (
        ((tmp_path / "other" / WEIGHTS).read_bytes(), "was not saved together"),
        (half, "cannot be read"),
    ):
        (selector / WEIGHTS).write_bytes(content)
        with pytest.raises(PrunusError, match=words):
            push_to_hub(selector, NAME)
    assert not hub.exists()
    (selector / WEIGHTS).write_bytes(kept)
    push_to_hub(selector, NAME)


def test_a_copy_is_whole_or_not_there(
    hub: Path, selector: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(selector, NAME)
    link, copy = tmp_path / "link", tmp_path / "copies" / "one"
    link.symlink_to(tmp_path / "nowhere")
    refused = cli("hub", "pull", NAME, "--output", link)
    assert refused.code == 2 and "is there already" in refused.err
    refused = cli("hub", "pull", NAME, "--output", selector / CARD / "one")
    assert refused.code == 2 and "error: " in refused.err

    def full(source: Any, target: Any, **_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(shutil, "copy2", full)
        context.setattr(shutil, "copytree", partial(shutil.copytree, copy_function=full))
        refused = cli("hub", "pull", NAME, "--output", copy)
    assert refused.code == 2 and "No space left" in refused.err
    assert not copy.exists() and not list(tmp_path.rglob(".prunus-*"))
    assert cli("hub", "pull", NAME, "--output", copy).code == 0
    assert (copy / WEIGHTS).read_bytes() == (selector / WEIGHTS).read_bytes()


def test_what_others_put_there_is_refused(hub: Path) -> None:
    (hub / NAME).mkdir(parents=True)
    (hub / NAME / "model.safetensors").write_bytes(b"")
    with pytest.raises(PrunusError, match="has neither"):
        from_pretrained(NAME)
    with pytest.raises(PrunusError, match="me/nothing cannot be fetched.*network"):
        from_pretrained("me/nothing")


def test_without_a_network_it_says_so(selector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub itself, which may not go out."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PrunusError, match=r"cannot be fetched.*is there a network") as fetched:
        from_pretrained("nobody/nothing-of-the-kind")
    assert isinstance(fetched.value.__cause__, OSError)
    with pytest.raises(PrunusError, match=r"cannot be written.*hf auth login"):
        push_to_hub(selector, "nobody/nothing-of-the-kind")


def test_the_command_line(hub: Path, selector: Path, tmp_path: Path, cli: Cli) -> None:
    assert "llava-1.5-7b-hf" in cli("hub", "page", selector).out
    assert cli("hub", "push", selector, NAME).out.strip() == f"https://hub.example/{NAME}"
    assert cli("hub", "pull", NAME, "--json").json == {"path": str(hub / NAME)}
    copy = tmp_path / "copies" / "one"
    assert cli("hub", "pull", NAME, "--output", copy).code == 0
    assert sorted(one.name for one in copy.iterdir()) == sorted(["README.md", CARD, WEIGHTS])
    again = cli("hub", "pull", NAME, "--output", copy)
    assert again.code == 2 and "is there already" in again.err
    refused = cli("hub", "push", tmp_path / "nowhere", NAME)
    assert refused.code == 2 and "nothing to share" in refused.err
