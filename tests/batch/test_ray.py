"""A file answered by several workers on Ray: every row once, whatever dies or is stopped."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("ray", reason="needs prunus[ray]: make test-ray")

from prunus.batch.answerer import Job
from tests.batch.test_answerer import data_of, one_by_one, write_rows
from tests.batch.test_ledger import rows_of
from tests.support.batches import refusals, stop
from tests.support.command_line import Cli, refused

#: A method whose worker ends in the middle of a prompt: once, or wherever an image is flat.
DEADLY = '''
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from prunus import Cut, Method


@dataclass(frozen=True)
class Deadly(Method):
    """Evenly spread tokens; and then the end."""

    name = "deadly"
    summary = "ends its process"

    keep: int = field(default=64)
    once: str = field(default="")

    def cuts(self, depth):
        return [Cut(1)]

    def score(self, stage, view):
        groups, count = view.present.shape
        if self.once:
            calls = Path(self.once)
            with calls.open("a") as file:
                file.write("x")
            if calls.stat().st_size == 5:  # of all workers together
                os._exit(1)
        elif view.grid.rows < 4:
            os._exit(1)
        return -(torch.arange(count) % 9).float().expand(groups, count)
'''


def command(path: Path, output: Path, *more: object) -> list[str]:
    common = ["--output", output, "--max-new-tokens", 3, "--format", "jsonl", "--cpus", 1]
    return [sys.executable, "-m", "prunus", "batch", *map(str, [path, *common, *more])]


def ids(output: Path) -> list[str]:
    return [row["id"] for row in rows_of(output, "jsonl")]


def test_200_rows_a_worker_killed_and_the_run_stopped(tmp_path: Path) -> None:
    rows: list[Any] = write_rows(tmp_path, "scenes", 196)
    rows.insert(20, '{"id": "half", "image": ')
    rows.insert(70, {"id": "missing", "image": "no.png", "prompt": "what ?"})
    rows.insert(120, {"id": "placed", "image": rows[0]["image"], "prompt": "<image><image> ?"})
    rows.insert(180, {**rows[0], "prompt": "again ?"})
    path, output, calls = data_of(tmp_path, rows), tmp_path / "out", tmp_path / "calls"
    (tmp_path / "deadly.py").write_text(DEADLY)
    method = ["--method", f"{tmp_path / 'deadly.py'}:Deadly", "--param", f"once={calls}"]
    asked = command(path, output, *method, "--workers", 2, "--part-rows", 24)
    bad = {"21", "missing", "placed", "r0 (row 181)"}

    stop(asked, output, 3)
    assert calls.stat().st_size > 5  # a worker has died, and others went on
    before = ids(output)
    assert 24 <= len(before) < 196 and len(set(before)) == len(before)

    again = subprocess.run([*asked, "--json"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert re.search(r"^\d+ of 200 rows are done already$", again.stderr, re.M)
    facts = json.loads(again.stdout)
    assert (facts["rows"], facts["answered"], facts["refused"]) == (200, 196, 4)
    assert sorted(ids(output)) == sorted(f"r{number}" for number in range(196))
    assert set(refusals(output)) == bad
    assert "no JSON" in refusals(output)["21"]
    assert "no such image file" in refusals(output)["missing"]

    job = Job("tiny-llava", method[1], params=("once=",), max_new_tokens=3)
    alone = one_by_one(job, path)
    found = {row["id"]: row for row in rows_of(output, "jsonl")}
    assert found == {name: row for name, row in alone.items() if "answer" in row}

    third = subprocess.run([*asked, "--json"], capture_output=True, text=True, check=False)
    assert json.loads(third.stdout)["now"] == 0 and len(ids(output)) == 196


def test_a_row_that_kills_its_worker_is_left_out(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, "sizes", 6)
    Image.new("RGB", (280, 28)).save(tmp_path / "flat.png")
    rows.insert(2, {"id": "flat", "image": "flat.png", "prompt": "what is it ?"})
    path, output = data_of(tmp_path, rows), tmp_path / "out"
    (tmp_path / "deadly.py").write_text(DEADLY)
    method = ["--method", f"{tmp_path / 'deadly.py'}:Deadly", "--keep", 8]
    asked = command(path, output, "--model", "tiny-qwen", *method, "--batch", 4)
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert sorted(ids(output)) == [f"r{number}" for number in range(6)]
    assert refusals(output) == {"flat": "row 3: its worker died each time it was asked (2 times)"}


def test_what_workers_refuse_is_told_as_ever(cli: Cli, tmp_path: Path) -> None:
    path, output = data_of(tmp_path, write_rows(tmp_path, "scenes", 2)), tmp_path / "out"
    asked = ("batch", path, "--output", output, "--method", "fastv", "--param")
    refused(cli(*asked, "layer=40"), "fastv", "40")
    asked = (*asked, "layer=3")
    refused(cli(*asked, "--address", "127.0.0.1:9"), "no Ray cluster there")
    refused(cli(*asked, "--format", "csv"), "parquet, jsonl")
    refused(cli(*asked, "--model", "tiny-lava"), "unknown model")
    assert not list(output.glob("answers-*"))
