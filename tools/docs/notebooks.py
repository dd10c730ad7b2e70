"""Notebooks as pages: their text and code, to be read; they are run by tests/site."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "notebooks"


def navigation() -> list[dict[str, str]]:
    """Titles and pages."""
    return [{_title(file): f"notebooks/{file.stem}.md"} for file in sorted(FOLDER.glob("*.ipynb"))]


def pages() -> dict[str, str]:
    """The pages as Markdown."""
    return {f"notebooks/{file.stem}.md": _page(file) for file in sorted(FOLDER.glob("*.ipynb"))}


def cells(file: Path) -> list[tuple[str, str]]:
    """Kind ("markdown", "code") and text of each cell."""
    notebook = json.loads(file.read_text("utf-8"))
    return [(one["cell_type"], "".join(one["source"])) for one in notebook["cells"]]


def _title(file: Path) -> str:
    (_, first), *_ = cells(file)
    return first.splitlines()[0].removeprefix("# ")


def _page(file: Path) -> str:
    parts = []
    for kind, text in cells(file):
        parts.append(text if kind == "markdown" else f"```python\n{text}\n```")
    title, *rest = parts
    note = f"*A notebook: [download]({file.name}) it and run it. It needs no network.*"
    return "\n\n".join([title, note, *rest]) + "\n"
