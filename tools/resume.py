"""A plugin of pytest: what passed before, on these very files, is not run again.

    python -m pytest -p tools.resume             # goes on where the last call ended
    python -m pytest -p tools.resume --fresh     # begins again

As tests pass, or are skipped, their ids are written to out/tests-passed/KEY.txt. KEY stands for the
content of every file that git tracks or would track, for Python and for all installed packages: a
change to any of them begins anew. So does a run during which a file changed, since nobody knows
what it has run. Works with pytest-xdist: the first process reads and writes, the others are told.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path("out/tests-passed")  # below the root of the tree
_OPTION = "passed_before"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--fresh``."""
    parser.addoption("--fresh", action="store_true", help="forget which tests passed before")


def pytest_configure(config: pytest.Config) -> None:
    """One object that knows what passed, in each process.

    Raises:
        pytest.UsageError: the tree is not one of git, so nobody can say what is in it.
    """
    told = getattr(config, "workerinput", None)
    if told is not None:
        config.pluginmanager.register(Passed(set(told[_OPTION])))
        return
    log = Log(config.rootpath)
    if config.getoption("--fresh"):
        log.path.unlink(missing_ok=True)
    config.pluginmanager.register(Passed(log.read(), log))


class Log:
    """Ids of passed tests in a file that is named for the tree and its environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = self._home()

    def _home(self) -> Path:
        return self.root / FOLDER / f"{key(self.root)}.txt"

    def read(self) -> set[str]:
        """What stands in it; a line that was cut off while it was written does not count."""
        if not self.path.exists():
            return set()
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return {json.loads(line) for line in lines if line.endswith("\n")}

    def add(self, test: str) -> None:
        """``test`` passed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(test) + "\n")

    def holds(self) -> bool:
        """Whether the files are what they were; if they are not, all is forgotten."""
        if self._home() == self.path:
            return True
        self.path.unlink(missing_ok=True)
        return False


def key(root: Path) -> str:
    """Digest of the files below ``root``, of Python and of the installed packages.

    Raises:
        pytest.UsageError: ``root`` is no tree of git.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        raise pytest.UsageError(f"--fresh and going on need git: {listed.stderr.decode().strip()}")
    digest = hashlib.sha256()
    packages = {
        (one.metadata["Name"], one.version, str(one.locate_file("")))
        for one in importlib.metadata.distributions()
    }
    digest.update(repr((sys.version, platform.machine(), sorted(packages))).encode())
    for name in sorted(set(listed.stdout.split(b"\0")) - {b""}):
        path = root / name.decode(errors="surrogateescape")
        content = path.read_bytes() if path.is_file() else b""
        digest.update(b"%b %d " % (name, len(content)) + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


class Passed:
    """Leaves out what passed before; with a ``log``, writes down what passes now."""

    def __init__(self, before: set[str], log: Log | None = None) -> None:
        self.before = before
        self._log = log
        self._failed: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A process of pytest-xdist is told what need not run."""
        node.workerinput[_OPTION] = sorted(self.before)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Those that passed before go."""
        done = [item for item in items if item.nodeid in self.before]
        if done:
            config.hook.pytest_deselected(items=done)
            items[:] = [item for item in items if item.nodeid not in self.before]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has passed if set-up, call and what comes behind them all did."""
        if report.failed:
            self._failed.add(report.nodeid)
        ended = report.when == "teardown" and report.nodeid not in self._failed
        if ended and self._log is not None:
            self._log.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Nothing left to run is a success."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.before:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """How many were not run again."""
        if self._log is None:
            return
        if not self._log.holds():
            terminalreporter.line("files changed meanwhile: the next call begins again")
        elif self.before:
            terminalreporter.line(f"{len(self.before)} tests passed before, on the same files")
