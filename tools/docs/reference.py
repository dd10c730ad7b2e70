"""The reference: every public name, from its docstring."""

from __future__ import annotations

import prunus

#: Pages: file, title, and what it says first.
_PAGES = {
    "pruning": (
        "Pruning a model",
        "What programs that prune need. All of it is imported from `prunus`.",
    ),
    "own": ("Methods by their classes", "Each method by name: [Methods](../methods.md)."),
    "writing": (
        "Writing a method",
        "The contract between a method and the engine; a guide is [Adding a method]"
        "(../adding-a-method.md).",
    ),
    "errors": ("Errors and warnings", "What they have in common: [Errors](../files.md#errors)."),
}
#: Modules that are documented whole, behind the names of `prunus`.
_WHOLE = {
    "writing": ("prunus.method.signals", "prunus.method.budget", "prunus.grid"),
    "pruning": ("prunus.viz", "prunus.sharing"),
}


def home(name: str) -> str:
    """Where a public name is defined."""
    return f"{prunus._HOME[name]}.{name}"


def group(name: str) -> str:
    """The page of a public name."""
    module = prunus._HOME[name]
    if module.startswith("prunus.pruners."):
        return "own"
    if module == "prunus.errors":
        return "errors"
    inside = module.startswith(("prunus.method.", "prunus.signals."))
    return "writing" if inside and name != "methods" else "pruning"


def names() -> list[str]:
    """Every public name that has a docstring of its own."""
    return [name for name in prunus.__all__ if name in prunus._HOME]


def navigation() -> list[dict[str, str]]:
    """Titles and pages."""
    return [{title: f"reference/{file}.md"} for file, (title, _) in _PAGES.items()]


def pages() -> dict[str, str]:
    """The pages as Markdown, with what mkdocstrings fills in."""
    found = {}
    for file, (title, text) in _PAGES.items():
        lines = [f"# {title}", "", text, ""]
        for name in sorted((n for n in names() if group(n) == file), key=_order):
            lines += [f"::: {home(name)}", "    options:", "      heading_level: 2", ""]
        for module in _WHOLE.get(file, ()):
            lines += [f"## {module}", "", f"::: {module}", "    options:"]
            lines += ["      show_root_heading: false", "      heading_level: 3", ""]
        found[f"reference/{file}.md"] = "\n".join(lines)
    return found


def _order(name: str) -> tuple[bool, str]:
    """`load`, `prune` and other functions first."""
    return name[0].isupper(), name.lower()
