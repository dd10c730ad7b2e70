"""``python -m prunus.compare.page comparison.json page.html``: the page of a saved comparison."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

from prunus.compare.page.build import megabytes, write_page
from prunus.compare.reading import read_comparison
from prunus.errors import PrunusError


def main(arguments: list[str] | None = None) -> int:
    """Write the page and say how large it is; 1 where that cannot be done."""
    parser = ArgumentParser(prog="python -m prunus.compare.page", description=__doc__)
    parser.add_argument(
        "comparison", type=Path, help="comparison.json, as prunus compare writes it"
    )
    parser.add_argument("page", type=Path, help="the HTML file to write")
    asked = parser.parse_args(arguments)
    try:
        size = write_page(read_comparison(asked.comparison), asked.page)
    except PrunusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{asked.page}: {megabytes(size)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
