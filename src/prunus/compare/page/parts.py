"""Style and scripts of the page: small files, joined in this order."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

STYLES = (
    "colours",
    "base",
    "bar",
    "chart",
    "legend",
    "radar",
    "table",
    "layers",
    "viewer",
    "flips",
    "sources",
    "phone",
    "print",
)
#: Values that are made when the page is read come before what uses them.
SCRIPTS = (
    "dom",
    "format",
    "unpack",
    "data",
    "state",
    "look",
    "theme",
    "switches",
    "head",
    "tip",
    "scale",
    "frontier",
    "marks",
    "legend",
    "pareto",
    "radar",
    "sort",
    "columns",
    "table",
    "layers",
    "paint",
    "viewer",
    "closeup",
    "flips",
    "scatter",
    "published",
    "made",
    "main",
)


def style() -> str:
    """All of the style. The dark theme is written once, and stands for those who chose it and for
    those whose system did: CSS has no way to say both at once that older browsers know."""
    _, dark = _read("styles/dark.css").split("*/", 1)
    return "\n".join(_read(f"styles/{name}.css") for name in STYLES).replace("@dark;", dark.strip())


def script() -> str:
    """All of the script: the files share names with each other, and none with the page."""
    body = "\n".join(_read(f"scripts/{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{body}\n}})();\n'


def early() -> str:
    """The few lines that run before anything is drawn."""
    return _read("scripts/early.js")


def template() -> str:
    """The page, as a template of Jinja's."""
    return _read("page.html.jinja")


def source_hash(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()


def _read(name: str) -> str:
    return files("prunus.compare.page").joinpath(name).read_text("utf-8")
