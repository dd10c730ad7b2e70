"""Docstrings as Markdown: what is said as ``:func:`prunus.prune` `` becomes code."""

from __future__ import annotations

import re
from typing import Any

import griffe


def plain(text: str) -> str:
    """``text`` without Sphinx's roles, and with an empty line in front of lists."""
    text = re.sub(r":(?:attr|class|data|func|meth|mod|exc):`~?([^`]+)`", r"`\1`", text)
    return re.sub(r"(\n(?![*\s])[^\n]*)\n(\* )", r"\1\n\n\2", f"\n{text}").strip("\n")


class Roles(griffe.Extension):
    """Does so wherever the reference is made."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
