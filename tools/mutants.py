"""Small wrong changes to the code, each of which some test must notice.

The changes are listed in tools/mutants/*.toml, one file per area:

    [[mutant]]
    name = "strict"                       # with the area in front it names the mutant
    file = "src/prunus/signals/critical.py"
    old = "mask = joined > bound"         # stands exactly once in the file
    new = "mask = joined >= bound"
    tests = ["tests/signals/test_critical.py"]   # arguments of pytest; few and quick ones

Each is applied to a copy of the tree, never to the tree itself, and its tests run there until one
fails. A mutant is *killed* by a failing test and *survives* if all pass. It is *stale* if its old
text no longer stands exactly once in the file, or its tests cannot run: write it anew. All tests
must pass on the unchanged copy first, or nothing would be shown.

    python tools/mutants.py                          # all, two at a time
    python tools/mutants.py --only signals uniform   # whose name or file contains one of these
    python tools/mutants.py --list

Exit code: 0 all killed, 1 something survived or is stale, 2 the tests fail without any change.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
LISTS = Path(__file__).resolve().parent / "mutants"
SERVER = LISTS / "serve.py"
COPIED = ("src", "tests", "tools", "docs", "pyproject.toml", "README.md", "Makefile", "LICENSE")
LIMIT = 600  # seconds for the tests of one mutant: one that never ends is noticed as well
_PASSED, _FAILED = 0, 1  # exit codes of pytest
_BROKEN = 2  # tests could not be imported, which a change may cause


@dataclass(frozen=True)
class Mutant:
    """One wrong change: ``old`` in ``file`` becomes ``new``; one of ``tests`` should fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, text: str) -> str:
        """``text`` of the file with the change in it.

        Raises:
            ValueError: the old text does not stand there exactly once, or Python cannot read what
                comes out.
        """
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"the old text stands {count} times in {self.file}, not once")
        changed = text.replace(self.old, self.new)
        if changed == text:
            raise ValueError("the new text is the old one")
        try:
            compile(changed, self.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"what comes out is no Python: {error}") from error
        return changed


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant ("killed", "survived", "stale"), how, and in how many seconds."""

    mutant: Mutant
    state: str
    how: str
    seconds: float


def load(folder: Path = LISTS) -> list[Mutant]:
    """All mutants of a folder of lists, in their order.

    Raises:
        ValueError: an entry that is none, or two of one name.
    """
    found = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]:
            if set(entry) != {"name", "file", "old", "new", "tests"} or not entry["tests"]:
                raise ValueError(f"{path.name}: {entry} is no mutant")
            name, tests = f"{path.stem}/{entry.pop('name')}", tuple(entry.pop("tests"))
            found.append(Mutant(name=name, tests=tests, **entry))
    twice = [name for name, count in Counter(one.name for one in found).items() if count > 1]
    if twice:
        raise ValueError(f"two mutants are called {twice[0]}")
    return found


class Copy:
    """A copy of the tree ``root`` in ``place``, and a process that runs tests in it."""

    def __init__(self, root: Path, place: Path, bare: bool) -> None:
        self.place = place
        for name in COPIED:
            source = root / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".*")
                shutil.copytree(source, place / name, ignore=ignored)
            elif source.exists():
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, place / name)
        environment = {
            **os.environ,
            # A change within one second leaves the file's time as it was: no bytecode is kept.
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._server = subprocess.Popen(
            [sys.executable, str(SERVER), *(["--bare"] if bare else [])],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, tests: Sequence[str], limit: float = LIMIT) -> tuple[int | None, str]:
        """pytest's exit code (None: it did not end in time) and its output."""
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "--tb=line", *tests]
        task = {"folder": str(self.place), "arguments": arguments, "limit": limit}
        assert self._server.stdin is not None and self._server.stdout is not None
        print(json.dumps(task), file=self._server.stdin, flush=True)
        answer = json.loads(self._server.stdout.readline())
        return answer["code"], answer["output"]

    def close(self) -> None:
        """End the process."""
        self._server.terminate()
        self._server.communicate()


@contextmanager
def copies(root: Path, count: int, bare: bool = False) -> Iterator[list[Copy]]:
    """``count`` copies of the tree in temporary folders; ``bare`` for one without torch."""
    made: list[Copy] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        try:
            for number in range(count):
                made.append(Copy(root, Path(folder) / str(number), bare))
            yield made
        finally:
            for copy in made:
                copy.close()


def judge(mutant: Mutant, copy: Copy) -> Outcome:
    """Apply ``mutant`` to the ``copy``, run its tests, and take it back."""
    start, path = time.monotonic(), copy.place / mutant.file
    try:
        original = path.read_text(encoding="utf-8")
        path.write_text(mutant.apply(original), encoding="utf-8")
    except (OSError, ValueError) as error:
        return Outcome(mutant, "stale", str(error), 0.0)
    try:
        code, output = copy.run(mutant.tests)
    finally:
        path.write_text(original, encoding="utf-8")
    seconds = time.monotonic() - start
    if code is None:
        return Outcome(mutant, "killed", f"did not end within {LIMIT} s", seconds)
    if code == _PASSED:
        return Outcome(mutant, "survived", " ".join(mutant.tests), seconds)
    if code in (_FAILED, _BROKEN):
        noticed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", output, re.MULTILINE)
        return Outcome(mutant, "killed", noticed[1] if noticed else "tests did not start", seconds)
    return Outcome(mutant, "stale", f"pytest ended with {code}: {output[-200:]}", seconds)


def unchanged(mutants: Sequence[Mutant], places: Sequence[Copy]) -> str:
    """What is wrong with the tests when nothing is changed; "" if they pass. Files are dealt out
    to the copies."""
    tests = sorted({test for one in mutants for test in one.tests})
    # A test that is named by itself needs not run twice when its whole file does.
    tests = [test for test in tests if "::" not in test or test.split("::")[0] not in tests]
    parts = [part for number in range(len(places)) if (part := tests[number :: len(places)])]
    with ThreadPoolExecutor(len(places)) as pool:
        results = list(
            pool.map(lambda copy, part: copy.run(part, len(part) * LIMIT), places, parts)
        )
    return "\n".join(output[-2000:] for code, output in results if code != _PASSED)


def judged(mutants: Sequence[Mutant], places: Sequence[Copy]) -> Iterator[Outcome]:
    """Outcomes in the order of ``mutants``, one per copy at a time."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for place in places:
        free.put(place)

    def one(mutant: Mutant) -> Outcome:
        place = free.get()
        try:
            return judge(mutant, place)
        finally:
            free.put(place)

    with ThreadPoolExecutor(len(places)) as pool:
        try:
            yield from pool.map(one, mutants)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the mutants that are asked for, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="WORD", help="in the name or file")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--list", action="store_true", help="name them, run nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="tree to copy")
    parser.add_argument("--bare", action="store_true", help="tests of a tree that need no torch")
    parser.add_argument("--lists", type=Path, default=LISTS, help="folder of lists")
    asked = parser.parse_args(argv)
    mutants = load(asked.lists)
    if asked.only:
        mutants = [m for m in mutants if any(word in m.name + m.file for word in asked.only)]
    if not mutants or asked.jobs < 1:
        parser.error("no mutant has such a name" if not mutants else "--jobs must be at least 1")
    width = max(len(one.name) for one in mutants)
    if asked.list:
        for one in mutants:
            print(f"{one.name:{width}}  {one.file}")
        return 0
    start, states = time.monotonic(), Counter[str]()
    with copies(asked.root, min(asked.jobs, len(mutants)), asked.bare) as places:
        if wrong := unchanged(mutants, places):
            print(f"the tests fail without any change:\n{wrong}")
            return 2
        print(f"tests pass unchanged ({time.monotonic() - start:.0f} s)", flush=True)
        for outcome in judged(mutants, places):
            states[outcome.state] += 1
            row = f"{outcome.state:8}  {outcome.mutant.name:{width}}  {outcome.seconds:5.1f} s"
            print(f"{row}  {outcome.how}", flush=True)
    counts = ", ".join(f"{states[state]} {state}" for state in ("survived", "stale"))
    minutes = (time.monotonic() - start) / 60
    print(f"{states['killed']} of {len(mutants)} killed, {counts}, in {minutes:.1f} minutes")
    return 0 if states["killed"] == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
