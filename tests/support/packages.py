"""What pyproject.toml and the constraints say of versions."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def constraints(name: str) -> dict[str, str]:
    """Package to version, as a constraints file pins them."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def dependencies() -> dict[str, str]:
    """Package to lowest version, as pyproject.toml asks for them."""
    text = (ROOT / "pyproject.toml").read_text()  # tomllib is not in Python 3.10
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return dict(re.findall(r'"([\w-]+)>=([\d.]+)"', block[1]))
