"""Families that other packages bring."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prunus.errors import PrunusError
from prunus.families import families
from prunus.families.llava import Llava

FAMILY = """
from prunus.families.llava import Llava

class Other(Llava):
    name = "other-llava"
    model_types = ("otherllava",)
    summary = "from outside"
    no_merging = "nobody tried"
"""


def models(folder: Path, value: str, source: str) -> subprocess.CompletedProcess[str]:
    """What ``prunus models`` says where an installed package has an entry point."""
    (folder / "outside_families.py").write_text(source, encoding="utf-8")
    facts = folder / "outside_families-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-families\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        f"[prunus.families]\nother = outside_families:{value}\n"
    )
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", "prunus", "models", "--json"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_family_of_an_installed_package_is_found(tmp_path: Path) -> None:
    done = models(tmp_path, "Other", FAMILY)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    found = facts["families"]["other-llava"]
    assert (found["model_types"], found["summary"]) == (["otherllava"], "from outside")
    assert found["inputs"] is None  # nobody tried it


@pytest.mark.parametrize(
    ("value", "source", "message"),
    [
        ("Other", "import nowhere_to_be_found", "'other'.*cannot be loaded: No module named"),
        ("Other", "Other = 3", "'other' of prunus.families .*is no subclass"),
        ("Other", FAMILY.replace('"otherllava"', '"llava"'), "is for 'llava'.*describes already"),
        (
            "Other",
            FAMILY.replace("other-llava", "llava"),
            "has the name of 'llava'.*describes already",
        ),
    ],
)
def test_what_is_no_family_is_refused(
    value: str, source: str, message: str, tmp_path: Path
) -> None:
    done = models(tmp_path, value, source)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(message, " ".join(done.stderr.split())), done.stderr


def test_a_variant_without_model_types_changes_nothing() -> None:
    before = families()

    class Variant(Llava):
        name = "variant"

    assert families() == before
    with pytest.raises(PrunusError, match="'llava-next'.*describes already"):

        class Twin(Llava):
            name = "twin"
            model_types = ("llava_next",)
