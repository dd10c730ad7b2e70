"""The page (README.md) of what is shared: what it is for, how it was made, its numbers, its use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prunus.errors import PrunusError
from prunus.io.files import write_text
from prunus.method.registry import methods
from prunus.sharing.parcel import CALIBRATION, README, Parcel, pack
from prunus.versions import __version__

_HEAD = """---
library_name: prunus
pipeline_tag: image-text-to-text
tags:
- visual-token-pruning
- prunus
---
"""


def page_of(parcel: Parcel, name: str) -> str:
    """Its page as Markdown, of what will be found as ``name`` on the hub."""
    facts = parcel.facts
    lines = _selector(facts, name) if parcel.kind == "selector" else _calibration(facts, name)
    model = facts["model"]
    lines += ["## Which model", ""]
    lines += [f"It is for **{model}** and no other: prunus compares the model's weights when it is"]
    lines += ["used, and refuses or warns."]
    if parcel.fingerprint:
        lines += ["", f"Fingerprint of those weights: `{parcel.fingerprint}`."]
    lines += ["", *_numbers(facts)]
    lines += ["", f"Written by prunus {__version__}.", ""]
    return _HEAD + "\n".join(lines)


def write_page(folder: Path) -> None:
    """Put the page of a selector into its folder.

    Raises:
        PrunusFileError: it cannot be written.
    """
    write_text(folder / README, page_of(pack(folder), folder.resolve().name))


def _selector(facts: Mapping[str, Any], name: str) -> list[str]:
    kind = facts["selector"].get("kind", "stepwise")
    summary = methods()[kind].summary if kind in methods() else "a learned selector"
    method = methods()[kind].__name__ if kind in methods() else "Stepwise"
    return [
        f"# {name}",
        "",
        f"A selector of visual tokens for prunus: `{kind}`,",
        f"{summary}.",
        "",
        "```python",
        "import prunus",
        "from prunus.sharing import from_pretrained",
        "",
        f'method = prunus.{method}(selector=from_pretrained("{name}"))',
        "with prunus.prune(model, method) as run:",
        "    model.generate(**inputs, max_new_tokens=32)",
        "```",
        "",
    ]


def _calibration(facts: Mapping[str, Any], name: str) -> list[str]:
    method = facts["method"]
    if method not in methods():
        raise PrunusError(f"the calibration is for {method!r}, and no such method is known")
    return [
        f"# {name}",
        "",
        f"A calibration of `{method}` for prunus:",
        f"{methods()[method].summary}.",
        "",
        "```python",
        "import prunus",
        "from prunus.sharing import from_pretrained",
        "",
        f'file = from_pretrained("{name}")  # {CALIBRATION}',
        f'with prunus.prune(model, "{method}", calibration=file) as run:',
        "    model.generate(**inputs, max_new_tokens=32)",
        "```",
        "",
    ]


def _numbers(facts: Mapping[str, Any]) -> list[str]:
    """How it was made, and what came out."""
    parts = {
        "Training": facts.get("training"),
        "Parameters": facts.get("params"),
        "Measured": facts.get("measured"),
        "STOP biases, by mean share of the tokens": facts.get("biases"),
    }
    lines: list[str] = []
    for title, values in parts.items():
        if values:
            lines += [f"## {title}", "", "| | |", "|---|---|"]
            lines += [f"| {key} | {text} |" for key, text in _flat(values)]
            lines.append("")
    return lines


#: Longer lists are in the file.
_LONGEST = 40


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}, ")
        elif isinstance(value, list) and len(value) > _LONGEST:
            yield name, f"{len(value)} values, in the file"
        elif value is not None:
            yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
