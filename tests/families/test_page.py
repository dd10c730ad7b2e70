"""The page on families: the family that it prints is right as it stands, and so are its tests."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from prunus.families import Family, families
from prunus.families.base import _KNOWN
from tests.support.command_line import Cli
from tests.support.family_invariants import METHODS, case_of, hold, load
from tests.support.pages import ROOT, blocks

PAGE = "docs/families.md"
FILES = {
    found[1]: code
    for code in blocks(PAGE)
    if (found := re.match(r"# (\w+\.py)\n", code)) is not None
}
SQUARES = ((0, 0, 12), (30, 10, 15), (70, 25, 15))
INVARIANTS = (
    "identity_at_the_neutral_setting",
    "prefill_equals_the_masked_full_length_run",
    "beams_score_as_the_oracle_does",
    "rows_of_a_batch_equal_the_rows_alone",
    "a_text_turn_on_the_cache",
)


def run(name: str, folder: Path) -> Any:
    """The module that the page prints under ``name``."""
    path = folder / name
    path.write_text(FILES[name])
    spec = importlib.util.spec_from_file_location(f"page_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The tests of the page, while its family is known; afterwards nobody knows it any more."""
    folder = tmp_path_factory.mktemp("page")
    families()
    before = dict(_KNOWN)
    run("vip_llava.py", folder)
    yield run("test_vip_llava.py", folder)
    _KNOWN.clear()
    _KNOWN.update(before)


@pytest.fixture(scope="module")
def loaded(page: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder: tuple[Any, Any] = load(page.VIP_LLAVA, tmp_path_factory.mktemp("model"))
    return folder


@pytest.mark.parametrize("method", ["before", "released"])
@pytest.mark.parametrize("name", INVARIANTS)
def test_its_invariants(name: str, method: str, page: Any, loaded: tuple[Any, Any]) -> None:
    hold(name, case_of(page.VIP_LLAVA, loaded, "I"), METHODS[method])


@pytest.mark.parametrize("square", SQUARES)
def test_its_cells(square: Any, page: Any, loaded: tuple[Any, Any]) -> None:
    page.test_a_mark_lies_in_the_boxes_of_its_cells(square, loaded)


def test_its_costs(page: Any, loaded: tuple[Any, Any]) -> None:
    page.test_costs(loaded)


def test_what_enters_its_projector_is_what_selectors_read(
    page: Any, loaded: tuple[Any, Any]
) -> None:
    from prunus.families import family_of

    model, _ = loaded
    family = family_of(model)
    inputs = case_of(page.VIP_LLAVA, loaded, "I").prompts.rows(1)
    seen: list[torch.Tensor] = []
    handle = family.projector.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    assert seen[0].shape[-1] == family.feature_width


def test_its_check_on_the_command_line(page: Any, tmp_path: Path, cli: Cli) -> None:
    page.VIP_LLAVA.save(tmp_path)
    result = cli("check", "--model", tmp_path, "--methods", "random,evoprune", "--json")
    assert result.code == 0
    found = {row["method"]: row["status"] for row in result.json["rows"]}
    assert found == {"random": "ok", "evoprune": "refused"}


def test_the_table_names_what_must_be_said() -> None:
    text = (ROOT / PAGE).read_text()
    for name in Family.__abstractmethods__:
        assert re.search(rf"^\| `{name}\b", text, flags=re.M), name
    public = {name for name in vars(Family) if not name.startswith("_")}
    left_out = {"attention", "config", "text_config", "depth", "last_norm", "project", "text_width"}
    left_out |= {"fingerprint", "brings_features", "brings_pixels", "places", "check_decoder"}
    left_out |= {"tower_takes_bias", "tower_has_summary", "has_side_inputs", "recurrent"}
    assert not [name for name in public - left_out if f"`{name}" not in text and name not in text]


def test_every_family_is_told_of() -> None:
    text = (ROOT / PAGE).read_text()
    homes = {cls.__module__.rpartition(".")[2] for cls in families().values()}
    assert not [home for home in homes if f"families/{home}.py" not in text and "page_" not in home]
