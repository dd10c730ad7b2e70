"""``prunus constraints``: what pip then takes and refuses; and it works where models do not."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from prunus import versions
from prunus.errors import PrunusError
from tests.support.command_line import Cli, refused

ROOT = Path(__file__).resolve().parents[2]


def installed(monkeypatch: pytest.MonkeyPatch, **numbers: str) -> None:
    """These packages are what there is."""

    def version(name: str) -> str:
        if name not in numbers:
            raise versions.PackageNotFoundError(name)
        return numbers[name]

    monkeypatch.setattr(versions, "version", version)


@pytest.mark.parametrize(
    ("torch", "beside"),
    [
        ("2.6.0", "0.21.0"),
        ("2.9.1+cu130", "0.24.1+cu130"),
        ("2.12.1", "0.27.1"),
        ("2.13.0+cpu", "0.28.0+cpu"),
        ("2.13.0+rocm7.1", "0.28.0+rocm7.1"),
        ("2.15.0.dev20261101+cpu", None),
        ("2.13.0a0+gitabc", None),
        ("2.4.0", None),
        ("3.0.0", None),
    ],
)
def test_the_torchvision_of_a_torch(torch: str, beside: str | None) -> None:
    assert versions.torchvision_of(torch) == beside


def test_what_is_printed_is_what_fits(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, torch="2.13.0+cpu")
    result = cli("constraints")
    lines = [line for line in result.out.splitlines() if not line.startswith("#")]
    first, second = versions.release(versions.NEWEST)[:2]
    assert lines == [
        "torch==2.13.0+cpu",
        f"transformers>={versions.LOWEST},<{first}.{second + 1}",
        "torchvision==0.28.0+cpu",
    ]
    assert result.err == "" and "--extra-index-url" in result.out
    installed(monkeypatch, torch="2.13.0", torchvision="0.28.0")
    assert "--extra-index-url" not in cli("constraints").out
    assert cli("constraints", "--json").json["foreign_torchvision"] is None


def test_a_torchvision_of_another_build_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, torch="2.13.0+cpu", torchvision="0.28.0")
    result = cli("constraints")
    assert "torchvision 0.28.0 is installed, not torchvision==0.28.0+cpu" in result.err
    assert cli("constraints", "--json").json["foreign_torchvision"] == "0.28.0"


def test_a_torch_that_is_no_release(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, torch="2.15.0.dev20261101+cpu")
    result = cli("constraints")
    assert "torchvision=" not in result.out and "is no release" in result.err


def test_without_torch(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(PrunusError, match="pip install torch"):
        versions.constraints()
    refused(cli("constraints"), "torch is not installed")


def wheel(folder: Path, number: str) -> None:
    """A torchvision that has a name and nothing else."""
    info = f"torchvision-{number}.dist-info"
    with zipfile.ZipFile(folder / f"torchvision-{number}-py3-none-any.whl", "w") as opened:
        opened.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torchvision\nVersion: {number}\n"
        )
        opened.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        opened.writestr(f"{info}/RECORD", "")


def would_install(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """What pip says that it would install of the wheels in ``folder``, and of nothing else."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    quiet = ("--dry-run", "--ignore-installed", "--no-deps", "--no-index", "--quiet")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", *quiet, "--report", "-"),
            *("--find-links", str(folder), *more, "torchvision"),
        ],
        env={**own, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )


def test_pip_takes_the_build_of_torch_or_none(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the file it takes what stops every model."""
    installed(monkeypatch, torch="2.13.0+cpu")
    held = tmp_path / "fits.txt"
    held.write_text(cli("constraints").out)
    wheel(tmp_path, "0.29.0")
    wheel(tmp_path, "0.28.0")
    assert '"version": "0.29.0"' in would_install(tmp_path).stdout
    nothing = would_install(tmp_path, "-c", str(held))
    assert nothing.returncode and "ResolutionImpossible" in nothing.stderr, nothing.stderr
    wheel(tmp_path, "0.28.0+cpu")
    assert '"version": "0.28.0+cpu"' in would_install(tmp_path, "-c", str(held)).stdout


def test_it_works_where_torchvision_is_broken(tmp_path: Path) -> None:
    """It imports neither torch nor transformers, which then cannot be imported."""
    for name in ("torch", "torchvision", "transformers"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('torchvision::nms is missing')\n")
    found = subprocess.run(
        [sys.executable, "-m", "prunus", "constraints"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "\ntorch==" in found.stdout
