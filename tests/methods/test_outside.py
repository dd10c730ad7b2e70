"""Methods that are not in prunus: in a file, and in an installed package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import prunus
from prunus.errors import PrunusError, PrunusFileError, PrunusTypeError
from prunus.inference.named import build_methods, parse_one
from prunus.method import find_method, make_method, methods
from tests.support.command_line import Cli, refused
from tests.support.models import Case
from tests.support.outside import METHOD, as_before, method_file, package


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    methods()
    with as_before():
        yield


def test_a_file_in_python(llava: Case, tmp_path: Path) -> None:
    name, inputs = method_file(tmp_path), llava.prompts.rows(1)
    with torch.no_grad(), prunus.prune(llava.model, name, keep=9) as run:
        llava.model(**inputs)
    assert len(run.trace[0].kept[0][0]) == 9 and run.trace[0].layer == 2
    with torch.no_grad(), prunus.prune(llava.model, f"{name}@late", keep=9) as run:
        llava.model(**inputs)
    assert run.trace[0].layer == 3
    assert make_method("seen", {"keep": 4}) == make_method(name, {"keep": 4})  # known by its name


def test_a_file_is_called_by_the_methods_own_name(tmp_path: Path) -> None:
    name = method_file(tmp_path)
    assert [parse_one(f"{name}{rest}").name for rest in ("", "@late", ":layer=1")] == [
        *("seen", "seen@late", "seen:layer=1"),
    ]
    both = build_methods(f"evoprune+{name}@late", "0.5,4", ["seen.layer=1"])
    assert both is not None and repr(both[1]) == "Seen(keep=4, layer=1)"


def test_a_file_that_is_imported_already_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = method_file(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import their_method  # type: ignore[import-not-found]

    assert find_method(name)[0] is their_method.Seen


def test_run_eval_demo_and_check_take_a_file(cli: Cli, picture: Path, tmp_path: Path) -> None:
    name = method_file(tmp_path)
    told = cli("run", picture, "--prompt", "what?", "--method", name, "--keep", 64, "--json")
    assert told.code == 0 and told.json["tokens"]["kept"] == 64
    asked = ("--keep", "64", "--limit", 2, "--json", "--data", "scenes")
    told = cli("eval", "--methods", f"{name},{name}@late", *asked)
    assert [row["name"] for row in told.json["rows"]][1:] == ["seen", "seen@late"]
    told = cli("demo", "--method", name, "--output", tmp_path / "demo.png", "--json")
    assert told.code == 0 and (tmp_path / "demo.png").is_file()
    told = cli("check", "--model", "tiny-llava", "--method", f"{name},{name}@late", "--json")
    assert told.code == 0 and told.json["ok"] is True
    rows = [(row["method"], row["setting"], row["status"]) for row in told.json["rows"]]
    assert rows == [("seen", "keep=0.3", "ok"), ("seen@late", "keep=0.3, layer=3", "ok")]


WRONG = METHOD.replace(
    'return view[Attention(self.layer - 1, "text")]',
    "return __import__('torch').rand(view.present.shape)",
)


def test_check_finds_what_is_wrong_in_a_file(cli: Cli, tmp_path: Path) -> None:
    """Scores that differ from call to call: a batch chooses other tokens than its rows."""
    name = method_file(tmp_path, source=WRONG.format(name="luck"))
    told = cli("check", "--model", "tiny-llava", "--methods", name)
    assert told.code == 1 and "WRONG" in told.out and "luck" in told.out


def test_an_installed_package_in_a_process_of_its_own(picture: Path, tmp_path: Path) -> None:
    package(tmp_path, "seen_module", METHOD.format(name="seen"))
    told = _prunus(tmp_path, "run", str(picture), "--prompt", "what?", "--method", "seen@late")
    assert told.returncode == 0, told.stderr
    assert "144" in told.stdout  # a quarter of 576


def test_an_installed_package_in_run_eval_and_check(
    cli: Cli, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "seen" not in methods()
    monkeypatch.syspath_prepend(package(tmp_path, "their_seen", METHOD.format(name="seen")))
    assert "seen" in methods()
    told = cli("run", picture, "--prompt", "what?", "--method", "seen", "--keep", 64, "--json")
    assert told.code == 0 and told.json["tokens"]["kept"] == 64
    asked = ("--keep", "64", "--limit", 2, "--json", "--data", "scenes")
    assert cli("eval", "--methods", "seen", *asked).json["rows"][1]["name"] == "seen"
    told = cli("check", "--model", "tiny-llava", "--methods", "seen", "--json")
    assert told.code == 0 and told.json["rows"][0]["status"] == "ok"


@pytest.mark.parametrize(
    ("source", "entry", "message"),
    [
        ("import nowhere_to_be_found", "a = {module}:Seen", "No module named 'nowhere_to"),
        ("raise RuntimeError('not today')", "a = {module}:Seen", "not today"),
        ("Seen = 3", "a = {module}:Seen", "is no pruning method"),
        (METHOD.format(name="clse"), "a = {module}:Seen", "'clse' of .*is taken by prunus.prun"),
        (METHOD.format(name="seen"), "a = {module}:Other", "Other"),
    ],
)
def test_a_broken_package_is_named(
    source: str, entry: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(package(tmp_path, "their_broken", source, entry))
    with pytest.raises(PrunusError, match="the package their-their_broken") as caught:
        methods()
    assert re.search(message, str(caught.value))
    with pytest.raises(PrunusError, match="repair or uninstall it"):  # not forgotten, either
        methods()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("class Seen: pass", PrunusError, "is no pruning method: a subclass of prunus.Method"),
        ("Seen = 3", PrunusError, "is no pruning method"),
        ("import prunus\nclass Seen(prunus.Method): pass", PrunusError, "with a name"),
        ("import prunus\nclass Seen(prunus.Method):\n    name = 'a'", PrunusError, "no dataclass"),
        (
            "import prunus\nclass Seen(prunus.CLSE):\n    name = 'a'\n    more: int = 3",
            PrunusError,
            "no dataclass",
        ),
        (METHOD.format(name="clse"), PrunusError, "name 'clse' of .* is taken by prunus.pruners.c"),
        ("there = 1", PrunusError, "defines no 'Seen'"),
    ],
)
def test_what_is_no_method_is_refused(
    source: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    before = set(methods())
    with pytest.raises(error, match=message):
        find_method(method_file(tmp_path, source=source))
    assert set(methods()) == before  # nothing of it is offered


def test_what_is_not_there_is_refused(cli: Cli, picture: Path, tmp_path: Path) -> None:
    with pytest.raises(PrunusFileError, match="no such file"):
        find_method(f"{tmp_path / 'nothing.py'}:Seen")
    name = method_file(tmp_path)
    for wrong, words in ((f"{name}@early", "no preset 'early': there are seen@late"),):
        with pytest.raises(PrunusError, match=words):
            find_method(wrong)
    refused(cli("run", picture, "--prompt", "what?", "--method", "there.py"), "there.py:MyMethod")
    refused(cli("check", "--method", f"{tmp_path}/nothing.py:Seen"), "no such file")


def test_a_parameter_without_default_has_to_be_given(
    cli: Cli, picture: Path, tmp_path: Path
) -> None:
    name = method_file(
        tmp_path,
        source=METHOD.format(name="seen")
        .replace("layer: int = 2", "")
        .replace("keep: int | float = 0.25", "layer: int\n    keep: float = 0.25"),
    )
    with pytest.raises(PrunusError, match="seen needs layer"):
        make_method(name, {})
    refused(cli("run", picture, "--prompt", "what?", "--method", name), "seen needs layer")
    from prunus.evaluate.cells import default_names

    assert "seen" not in default_names()


def test_without_keep_the_neutral_setting_has_to_be_said(tmp_path: Path) -> None:
    name = method_file(tmp_path, source=METHOD.format(name="seen").replace("keep:", "k:"))
    with pytest.raises(PrunusTypeError, match="define neutral"):
        make_method(name, {}).neutral()


RAISES = METHOD.format(name="half") + "\n\nraise KeyError('their own mistake')\n"


def test_a_file_that_raises_shows_its_own_traceback_once(picture: Path, tmp_path: Path) -> None:
    name = method_file(tmp_path, source=RAISES)
    told = _prunus(tmp_path, "run", str(picture), "--prompt", "what?", "--method", name)
    assert told.returncode == 1 and told.stdout == ""
    assert told.stderr.count("Traceback (most recent call last)") == 1
    assert "their_method.py" in told.stderr and told.stderr.rstrip().endswith("mistake'")


def test_nothing_is_left_of_a_file_that_raises(tmp_path: Path) -> None:
    before = methods()
    with pytest.raises(KeyError, match="their own mistake"):
        find_method(method_file(tmp_path, source=RAISES))
    assert methods() == before
    assert find_method(method_file(tmp_path, "half"))[0].name == "half"  # repaired


def test_looking_methods_and_families_up_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunus.families import families

    methods(), families()

    def scanned(**_: Any) -> None:
        raise AssertionError("the search path was scanned again")

    monkeypatch.setattr("prunus.io.installed.entry_points", scanned)
    start = time.perf_counter()
    for _ in range(200):
        methods(), families()
    assert time.perf_counter() - start < 1.0


def _prunus(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", "prunus", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
