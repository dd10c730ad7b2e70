"""The notebooks run from end to end, are short, and are committed without outputs."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient", reason="make test-docs has it")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
#: Seconds of a core that one may take, whatever else runs on the machine.
MOST = 60.0


def test_there_are_three() -> None:
    assert [one.stem for one in NOTEBOOKS] == [
        "compare-on-your-data",
        "look-at-tokens",
        "write-a-method",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_has_no_outputs(path: Path) -> None:
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def _spent() -> float:
    """Seconds of a core that processes took which this one started, and which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    start = _spent()
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    took = _spent() - start
    print(f"{path.stem}: {took:.1f} s")
    assert 1 < took < MOST, f"{path.stem} takes {took:.0f} s"
    texts = [
        output.get("text", "")
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    ]
    assert any(text.strip() for text in texts)
