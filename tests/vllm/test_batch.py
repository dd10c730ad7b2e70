"""`prunus batch --engine vllm`: the answers and counts of transformers, every row once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prunus import prune
from prunus.batch.answerer import Job
from tests.batch.test_answerer import data_of, one_by_one, write_rows
from tests.batch.test_ledger import rows_of
from tests.support.batches import refusals, stop

pytest.importorskip("vllm", reason="make vllm-env makes an environment with it")

#: A method that ends vLLM's engine wherever an image is flat.
DEADLY = """
import os
from dataclasses import dataclass, field

import torch

from prunus import Cut, Method


@dataclass(frozen=True)
class Deadly(Method):
    name = "deadly"
    summary = "ends its process"

    keep: int = field(default=8)

    def cuts(self, depth):
        return [Cut(None)]

    def score(self, stage, view):
        if view.grid.rows < 4:
            os._exit(1)
        groups, count = view.present.shape
        return -(torch.arange(count) % 9).float().expand(groups, count)
"""


def command(path: Path, output: Path, *more: object) -> list[str]:
    own = ["--engine", "vllm", "--output", output, "--max-new-tokens", 3, "--format", "jsonl"]
    own += ["--vllm", "enforce_eager=true", "--vllm", "max_model_len=1536", "--json"]
    return [sys.executable, "-m", "prunus", "batch", *map(str, [path, *own, *more])]


def environment() -> dict[str, str]:
    own = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL"):
        own.pop(name, None)
    return own


def test_stopped_and_gone_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = write_rows(tmp_path, "scenes", 12)
    rows[1]["images"] = [rows[1].pop("image"), rows[0]["image"]]
    rows.insert(2, '{"id": "half", "image": ')
    rows.insert(4, {"id": "missing", "image": "no.png", "prompt": "what ?"})
    rows.insert(5, {"id": "long", "image": rows[0]["image"], "prompt": "what is it ? " * 600})
    path, output = data_of(tmp_path, rows), tmp_path / "out"
    method = ["--method", "divprune", "--keep", "64"]
    asked = command(path, output, *method, "--batch", 2, "--part-rows", 2)
    stop(asked, output, 2, environment())
    before = rows_of(output, "jsonl")
    assert 2 <= len(before) < 12

    again = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment())
    assert again.returncode == 0, again.stderr
    facts = json.loads(again.stdout)
    assert (facts["rows"], facts["answered"], facts["refused"]) == (15, 12, 3)
    found = rows_of(output, "jsonl")
    assert [row for row in found if row in before] == before
    assert sorted(row["id"] for row in found) == sorted(f"r{number}" for number in range(12))
    reasons = refusals(output)
    assert set(reasons) == {"3", "missing", "long"}
    assert "no such image file" in reasons["missing"] and "1536" in reasons["long"]

    # In vLLM, LLaVA's positions are counted by tokens.
    monkeypatch.setattr("prunus.batch.answerer.prune", partial(prune, positions="compact"))
    alone = one_by_one(Job("tiny-llava", "divprune", "64", max_new_tokens=3), path)
    assert {row["id"]: row for row in found} == {
        name: row for name, row in alone.items() if name in {one["id"] for one in found}
    }
    assert {row["id"]: row["kept"] for row in found}["r1"] == 128


def test_the_answers_of_transformers_and_a_row_that_ends_the_engine(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, "sizes", 5)
    rows.append({"id": "film", "video": "builtin:2", "prompt": "does it move ?"})
    good = data_of(tmp_path, rows)
    (tmp_path / "deadly.py").write_text(DEADLY)
    method = f"{tmp_path / 'deadly.py'}:Deadly"
    alone = one_by_one(Job("tiny-qwen", method, "8", max_new_tokens=3), good)
    Image.new("RGB", (280, 28)).save(tmp_path / "flat.png")
    rows.insert(2, {"id": "flat", "image": "flat.png", "prompt": "what is it ?"})
    path, output = data_of(tmp_path, rows), tmp_path / "out"
    asked = command(path, output, "--model", "tiny-qwen", "--method", method, "--keep", 8)
    done = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    found = {row["id"]: {**row, "number": 0} for row in rows_of(output, "jsonl")}
    assert found == {name: {**row, "number": 0} for name, row in alone.items()}
    assert refusals(output) == {"flat": "row 3: vLLM's engine ended when it was asked alone"}
