"""Runs pytest again and again without importing torch and transformers again and again.

Started by tools/mutants.py. Each line of standard input is JSON: a folder, pytest's arguments and a
limit in seconds. A fork of this process, which has imported everything but prunus and its tests
(nothing, if it was started with --bare), runs them in that folder. Each line of standard output is
JSON: pytest's exit code (null: stopped at the limit) and what it printed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest


def preload() -> None:
    """Import for the forks what every test of prunus needs, in one thread."""
    import numpy  # noqa: F401
    import torch
    import transformers
    from PIL import Image  # noqa: F401

    torch.set_num_threads(1)
    for name in (
        "CLIPVisionModel",
        "LlamaForCausalLM",
        "LlavaForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "SiglipVisionModel",
    ):
        getattr(transformers, name)  # transformers imports what is asked for


def run(folder: Path, arguments: list[str], limit: float) -> tuple[int | None, str]:
    """pytest's exit code and output in a fork."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        child = os.fork()
        if not child:
            _be_pytest(folder, arguments, output.fileno())
        code = _wait(child, time.monotonic() + limit)
        output.seek(0)
        return code, output.read()


def _be_pytest(folder: Path, arguments: list[str], output: int) -> None:
    """In the fork: never returns."""
    code = 70
    try:
        os.setsid()  # so that what the tests start can be ended with them
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        sys.path[:0] = [str(folder / "src"), str(folder)]
        os.environ["PYTHONPATH"] = str(folder / "src")
        code = int(pytest.main(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main() -> None:
    """Answer until there is no more input."""
    if "--bare" not in sys.argv:
        preload()
    for line in sys.stdin:
        task: dict[str, Any] = json.loads(line)
        code, output = run(Path(task["folder"]), task["arguments"], task["limit"])
        print(json.dumps({"code": code, "output": output}), flush=True)


if __name__ == "__main__":
    main()
