"""Does prunus work on another Python? What can be tried there is tried, and said.

    python tools/try_python.py python3.13            # what needs no torch
    python tools/try_python.py python3.13 --torch    # installs torch as well, and runs the tests

An environment of that Python is made in .venv-pythonX.Y. Without torch: the package is built and
installed, its code and the tests are compiled, every module is imported (tools/stand_ins.py), the
command line answers, and mypy reads the package as that Python would. torch is asked for by name,
because for most Pythons it comes as a build for CUDA of several gigabytes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
COMPILED = ("src", "tests", "tools", "benchmarks")
COMMANDS = ("run", "eval", "check", "train", "calibrate", "analyse", "methods", "models", "demo")
TESTS = (".[train,eval,peft]", "av", "pytest", "pytest-xdist")


def dependencies() -> list[str]:
    """What pyproject.toml asks for, but torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [one for one in project["dependencies"] if not one.startswith("torch")]


def done(what: str, command: Sequence[str | Path], **environment: str) -> bool:
    """Run a command in the tree; whether it succeeded. What it printed is shown if it did not."""
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode:
        print(ran.stdout)
    print(f"{'FAILED' if ran.returncode else 'ok':8}{what}", flush=True)
    return ran.returncode == 0


def version_of(python: str) -> str:
    """``X.Y`` of an interpreter.

    Raises:
        SystemExit: there is none of that name.
    """
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        ran = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"error: {python} is no Python that runs here: {error}") from error
    return ran.stdout.strip()


def without_torch(version: str, python: Path, scratch: Path) -> list[bool]:
    """Everything that needs no tensors."""
    packages = (".[train,eval,peft]", "--no-deps")
    cache = {"PYTHONPYCACHEPREFIX": str(scratch / "bytecode")}
    results = [
        done("dependencies", [python, "-m", "pip", "install", "-q", *dependencies()]),
        done("the package", [python, "-m", "pip", "install", "-q", *packages]),
        done("compiles", [python, "-m", "compileall", "-q", "-f", *COMPILED], **cache),
        done("every module is imported", [python, "tools/stand_ins.py"]),
        done(
            "mypy",
            [
                sys.executable,
                *("-m", "mypy", "--python-version", version, "--cache-dir", scratch / "mypy"),
            ],
        ),
    ]
    for name in COMMANDS:
        results.append(
            done(f"prunus {name} --help", [python, "-m", "prunus", name, "--help"], PYTHONPATH="")
        )
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Try, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("python", help="an interpreter, by name or path")
    parser.add_argument("--torch", action="store_true", help="install torch, and run the tests")
    parser.add_argument("tests", nargs="*", help="arguments of pytest, behind --torch")
    asked = parser.parse_intermixed_args(argv)
    version = version_of(asked.python)
    home = ROOT / f".venv-python{version}"
    python = home / "bin" / "python"
    print(f"Python {version}", flush=True)
    if not python.exists() and not done("an environment", [asked.python, "-m", "venv", home]):
        return 1
    results = without_torch(version, python, home / "scratch")
    if asked.torch:
        install = (python, "-m", "pip", "install", "-q")
        results += [
            done("torch", [*install, "-c", "constraints.txt", "torch"]),
            done("what the tests need", [*install, *TESTS]),
            done(
                "the tests", [python, "-m", "pytest", "-m", "not full and not wheel", *asked.tests]
            ),
        ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
