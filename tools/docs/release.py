"""Put a built site among those of other versions, so that each page lists all of them.

    python -m tools.docs.release site sites      # make docs-release

``sites/`` then has a folder for each version, ``versions.json``, which the list in a page's header
is read from (the form is that of mike), and an ``index.html`` that leads to the newest. It is what
a host of static files is given. A version that is there already is replaced, others stay as they
were built. The list is what folders there are: one that is deleted is gone at the next release.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

from prunus.versions import __version__

_INDEX = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>prunus</title>
<meta http-equiv="refresh" content="0; url={newest}/index.html">
<p>The newest version: <a href="{newest}/index.html">prunus {newest}</a>.</p>
"""


def versions(folder: Path) -> list[str]:
    """The versions in ``folder``, the newest first; the newest that is no trial version before
    trial versions."""
    found = []
    for one in folder.iterdir():
        if (one / "index.html").is_file():
            try:
                found.append(Version(one.name))
            except InvalidVersion:
                continue
    return [str(one) for one in sorted(found, reverse=True)]


def newest(found: list[str]) -> str:
    """The one that readers are led to: no trial version, if there is another."""
    final = [one for one in found if not Version(one).is_prerelease]
    return (final or found)[0]


def publish(built: Path, folder: Path, version: str = __version__) -> list[str]:
    """Copy the site in ``built`` to ``folder/version`` and write the list; all versions there.

    Raises:
        SystemExit: there is no site in ``built``, or ``version`` is none.
    """
    if not (built / "index.html").is_file():
        raise SystemExit(f"there is no site in {built}: make docs builds it")
    try:
        name = str(Version(version))
    except InvalidVersion as error:
        raise SystemExit(f"{version!r} is no version: give one like 0.2.0") from error
    folder.mkdir(parents=True, exist_ok=True)
    fresh, target = folder / f".{name}.new", folder / name
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(built, fresh)
    if target.exists():
        shutil.rmtree(target)
    fresh.rename(target)
    found = versions(folder)
    latest = newest(found)
    listed = [
        {"version": one, "title": one, "aliases": ["latest"] if one == latest else []}
        for one in found
    ]
    (folder / "versions.json").write_text(json.dumps(listed, indent=2) + "\n", "utf-8")
    (folder / "index.html").write_text(_INDEX.format(newest=latest), "utf-8")
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("built", type=Path, help="the site that `make docs` built")
    parser.add_argument("folder", type=Path, help="where those of all versions are")
    given = parser.parse_args()
    found = publish(given.built, given.folder)
    sys.stdout.write(f"{given.folder}: {', '.join(found)}; index.html leads to {newest(found)}\n")


if __name__ == "__main__":
    main()
