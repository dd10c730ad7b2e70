"""Make the photographs that ship, from those in scikit-image's wheel: smaller, as JPEG.

    pip download --no-deps scikit-image==0.26.0
    python tools/photographs.py scikit_image-*.whl     # src/prunus/tasks/data/photographs/

Before that it looks up in the wheel what is said of each one's rights, and stops where that is not
what NOTICE tells.
"""

from __future__ import annotations

import argparse
import ast
import io
import zipfile
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parents[1] / "src" / "prunus" / "tasks" / "data" / "photographs"
SIDE, QUALITY = 480, 85
#: By name: the file in the wheel, the function there that gives it, and what its docstring says.
TAKEN = {
    "cat": ("chelsea.png", "chelsea", "CC0 by the photographer (Stefan van der Walt)"),
    "coffee": ("coffee.png", "coffee", "CC0 by the photographer (Rachel Michetti)"),
    "rocket": ("rocket.jpg", "rocket", "released in the public domain"),
}


def said(source: str, function: str) -> str:
    """The docstring of one of the functions in ``source``, on one line."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return " ".join((ast.get_docstring(node) or "").split())
    raise SystemExit(f"there is no function {function} any more")


def make(wheel: Path, folder: Path) -> None:
    """Write all of them into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as opened:
        source = opened.read("skimage/data/_fetchers.py").decode("utf-8")
        for name, (file, function, rights) in TAKEN.items():
            if rights not in said(source, function):
                raise SystemExit(f"{file}: its docstring no longer says {rights!r}")
            image = Image.open(io.BytesIO(opened.read(f"skimage/data/{file}"))).convert("RGB")
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            target = folder / f"{name}.jpg"
            image.save(target, quality=QUALITY, optimize=True)
            print(f"{target.name}: {image.width}x{image.height}, {target.stat().st_size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--output", type=Path, default=FOLDER)
    given = parser.parse_args()
    make(given.wheel, given.output)
