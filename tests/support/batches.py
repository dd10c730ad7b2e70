"""Runs of ``prunus batch`` in a process of their own: stopped, and what they refused."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def refusals(output: Path) -> dict[str, str]:
    """Reasons by id."""
    path = output / "refused.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["reason"] for row in rows}


def stop(
    asked: Sequence[str], output: Path, parts: int, environment: Mapping[str, str] | None = None
) -> None:
    """Run the command ``asked`` and interrupt it, as Ctrl-C does, when so many ``parts`` are
    written."""
    process = subprocess.Popen(
        asked,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        while len(list(output.glob("answers-*.jsonl"))) < parts:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, said
