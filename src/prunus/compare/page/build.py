"""The page of its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunus.compare.contract import FORMAT, Comparison
from prunus.compare.page import parts
from prunus.compare.page.pack import packed
from prunus.compare.page.plain import plain_runs
from prunus.errors import PrunusError, PrunusFileError, shown
from prunus.io.files import write_bytes

#: Signs by which text could end the element that it stands in, or a line of a script.
_ESCAPED = {sign: f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def write_page(comparison: Comparison, path: Path) -> int:
    """Write the page of ``comparison`` to ``path``; its size in bytes.

    Raises:
        PrunusError: a comparison of another form, or Jinja is not installed.
        PrunusFileError: the file cannot be written; what was there before is unchanged.
    """
    content = page_of(comparison).encode("utf-8")
    write_bytes(path, content, "the page")
    return len(content)


def page_of(comparison: Comparison) -> str:
    """The HTML of ``comparison``; errors as of :func:`write_page`."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise PrunusError("the page needs Jinja: pip install 'prunus[compare]'") from error
    if not isinstance(comparison, dict) or comparison.get("format") != FORMAT:
        found = comparison.get("format") if isinstance(comparison, dict) else comparison
        raise PrunusFileError(
            f"this is no comparison of form {FORMAT} (found {shown(found)}): make it anew with "
            "this version of prunus compare"
        )
    style, script, early = parts.style(), parts.script(), parts.early()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(parts.template())
    given = {
        "policy": _policy(style, script, early),
        "style": style,
        "early": early,
        "script": script,
        "data": embedded(packed(comparison)),
        "comparison": comparison,
        "plain": plain_runs(comparison),
    }
    # The page says how large it is, which a first try tells.
    size = len(template.render(**given, size="0.0 MB").encode("utf-8"))
    return template.render(**given, size=megabytes(size))


def megabytes(size: int) -> str:
    """A number of bytes as ``1.3 MB``."""
    return f"{size / 1e6:.1f} MB"


def embedded(value: Any) -> str:
    """JSON that can stand in a script element, whatever texts it holds."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign, escape in _ESCAPED.items():
        text = text.replace(sign, escape)
    return text


def _policy(style: str, *scripts: str) -> str:
    """Nothing is loaded but pictures that stand in the page; nothing runs but our scripts."""
    allowed = " ".join(f"'{parts.source_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; img-src data:; style-src '{parts.source_hash(style)}'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
