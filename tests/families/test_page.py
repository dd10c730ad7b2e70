"""The page on families prints a family as it stands, with its tests, and tells of all there is."""

from __future__ import annotations

import re

from prunus.families import Family, families
from tests.support.pages import ROOT, blocks

PAGE = "docs/families.md"
HOMES = {
    "vip_llava.py": "src/prunus/families/vip_llava.py",
    "kinds/vip_llava.py": "tests/support/kinds/vip_llava.py",
    "test_vip_llava.py": "tests/families/test_vip_llava.py",
}


def test_what_it_prints_are_the_files_themselves() -> None:
    found = {}
    for code in blocks(PAGE):
        if (name := re.match(r"# ([\w/]+\.py)\n", code)) is not None:
            found[name[1]] = code[name.end() :]
    assert found == {name: (ROOT / home).read_text() for name, home in HOMES.items()}


def test_the_table_names_what_must_be_said() -> None:
    text = (ROOT / PAGE).read_text()
    for name in Family.__abstractmethods__:
        assert re.search(rf"^\| `{name}\b", text, flags=re.M), name
    public = {name for name in vars(Family) if not name.startswith("_")}
    left_out = {"attention", "config", "text_config", "depth", "last_norm", "project", "text_width"}
    left_out |= {
        "check_merging",
        "fingerprint",
        "brings_features",
        "brings_pixels",
        "places",
        "known_places",
        "placeholders_of",
        "check_decoder",
    }
    left_out |= {"tower_takes_bias", "tower_has_summary", "has_side_inputs", "recurrent"}
    assert not [name for name in public - left_out if f"`{name}" not in text and name not in text]


def test_every_family_is_told_of() -> None:
    text = (ROOT / PAGE).read_text()
    homes = {cls.__module__.rpartition(".")[2] for cls in families().values()}
    assert not [home for home in homes if f"families/{home}.py" not in text]
