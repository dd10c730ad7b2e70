"""What the documents print is what runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import prunus
from prunus.method.base import KNOWN as _REGISTRY
from tests.support.models import Case
from tests.support.pages import blocks

ROOT = Path(__file__).parents[1]


def test_the_ten_lines_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks("README.md")[0], "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "576 -> 64 at the last layer" in printed
    assert len(names["run"].trace[0].kept[0][0]) == 64


def test_the_other_python_blocks_compile() -> None:
    for page in ("README.md", "docs/check.md", "docs/families.md", "docs/training.md"):
        for code in blocks(page):
            compile(code, page, "exec")


def test_the_method_of_the_guide_works_as_printed(case: Case) -> None:
    code = blocks("docs/adding-a-method.md")[0]
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(code, "guide", "exec"), names)
    try:
        assert prunus.methods()["residual"] is names["Residual"]
        inputs = case.prompts.rows(1)
        with torch.no_grad():
            states = case.model(**inputs, output_hidden_states=True).hidden_states
            with prunus.prune(case.model, "residual", keep=5) as run:
                case.model(**inputs)
        places = case.prompts.spots(inputs["input_ids"])[0][0]
        change = (states[1][0, places] - states[0][0, places]).norm(dim=-1)
        assert torch.equal(run.trace[0].kept[0][0], change.topk(5).indices.sort().values)
    finally:
        _REGISTRY.pop("residual", None)


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page if page == "README.md" else ROOT / "docs" / page
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} links to {target}, which does not exist"
