"""What contributors are told to do is what runs: hooks, targets of make, markers, Pythons."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "prunus"
MAKEFILE = (ROOT / "Makefile").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def recipe(target: str) -> list[str]:
    """Commands of a target of the Makefile, with its variables as they are written."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found is not None, target
    return [line.strip() for line in found[1].splitlines()]


def test_hooks_run_what_make_lint_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    [source] = config["repos"]
    assert source["repo"] == "local"  # nothing is downloaded
    hooks = source["hooks"]
    assert [hook["entry"] for hook in hooks] == [
        line.replace("$(BIN)", ".venv/bin") for line in recipe("lint")
    ]
    for hook in hooks:
        assert hook["language"] == "system"
        assert hook["always_run"] and not hook["pass_filenames"]  # the whole tree, as make does


def test_every_target_is_explained() -> None:
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    targets = set(phony[1].replace("\\\n", " ").split()) - {"help"}
    assert {"test", "test-all", "lint", "test-python"} <= targets
    told = "\n".join(recipe("help"))
    for target in targets:
        assert f"make {target} " in told, target
        if target not in ("demo", "clean", "format"):
            assert f"`make {target}" in CONTRIBUTING, target


def test_make_test_leaves_out_what_make_test_all_runs() -> None:
    assert 'QUICK := -m "not full and not wheel"' in MAKEFILE
    assert recipe("test") == ["$(BIN)/python $(PYTEST) $(QUICK)"]
    [everything] = recipe("test-all")
    assert "QUICK" not in everything and "-p tools.resume" in everything


def test_pythons_that_are_claimed_are_those_of_the_tests() -> None:
    claimed = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', _project())
    assert claimed == ["3.11"]
    assert re.search(r"^\| 3\.11 +\| all tests", CONTRIBUTING, re.MULTILINE)


def test_the_oldest_python_is_the_one_that_ruff_knows() -> None:
    lowest = re.search(r'requires-python = ">=3\.(\d+)"', _project())
    assert lowest is not None and f'target-version = "py3{lowest[1]}"' in _project()


def _project() -> str:
    return (ROOT / "pyproject.toml").read_text()


BROKEN = {
    "__init__.py": "",
    "good.py": (
        "import torch\nfrom torch import Tensor, nn\n\n\nclass Net(nn.Module):\n"
        "    @torch.no_grad()\n    def forward(self, x: Tensor | None) -> 'Tensor':\n"
        "        return x\n"
    ),
    "bad.py": "from torch import Tensor\nx: int = 1 + missing\n",
}


def test_modules_that_cannot_be_imported_are_found(tmp_path: Path) -> None:
    """What is tried on Pythons without torch can fail."""
    package = tmp_path / "small"
    package.mkdir()
    for name, text in BROKEN.items():
        (package / name).write_text(text)
    command = [sys.executable, str(ROOT / "tools" / "stand_ins.py"), "small"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "1 modules of small imported, 1 not" in done.stdout
    assert "small.bad" in done.stdout and "NameError" in done.stdout
    (package / "bad.py").unlink()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_pages_at_the_top_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / name).read_text()):
        assert (ROOT / target).exists(), f"{name} links to {target}, which does not exist"


def test_tests_that_are_named_somewhere_are_there() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    code = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tools").glob("*.py")]
    made_up = {"tests/test_one.py"}  # in an explanation
    named = {
        (path.relative_to(ROOT), name)
        for path in pages + code
        for name in re.findall(r"\btests/[\w/]+\.py", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    gone = [(path, name) for path, name in named if not (ROOT / name).exists()]
    assert not [one for one in gone if one[1] not in made_up], gone


def test_files_are_short() -> None:
    """One idea each."""
    sizes = {path: len(path.read_text().splitlines()) for path in SOURCES.rglob("*.py")}
    assert len(sizes) > 200 and {path.name: n for path, n in sizes.items() if n > 400} == {}
