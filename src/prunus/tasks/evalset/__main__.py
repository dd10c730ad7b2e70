"""Rewrites the files of both evaluation sets: ``python -m prunus.tasks.evalset``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from prunus.io.files import write_text
from prunus.tasks.evalset import Item, build_evalset
from prunus.tasks.evalset.videos import VideoItem, build_video_evalset


def main() -> None:
    """Write both sets anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder")
    args = parser.parse_args()
    sets: dict[str, Sequence[Item | VideoItem]] = {
        "tiny-llava": build_evalset(),
        "videos": build_video_evalset(),
    }
    for name, items in sets.items():
        text = "".join(item.to_json() + "\n" for item in items)
        write_text(args.output / f"{name}.jsonl", text)


if __name__ == "__main__":
    main()
