"""`prunus batch --engine vllm` refuses before anything is loaded. Needs no vLLM."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from prunus.batch.answerer import Job
from prunus.batch.ledger import Ledger
from prunus.batch.pool import Workers
from prunus.batch.rows import scan
from prunus.batch.run import Options, _settings
from prunus.batch.with_vllm import Engine, check
from prunus.errors import PrunusError
from tests.batch.test_answerer import data_of, write_rows
from tests.support.command_line import Cli, refused


@pytest.fixture
def asked(tmp_path: Path) -> tuple[object, ...]:
    path = data_of(tmp_path, write_rows(tmp_path, "scenes", 2))
    return "batch", path, "--output", tmp_path / "out", "--engine", "vllm", "--format", "jsonl"


def test_where_vllm_is_missing_it_says_what_to_install(
    cli: Cli, asked: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunus.vllm.versions.installed", lambda: None)
    refused(cli(*asked, "--method", "divprune"), "vLLM is not installed", "prunus[vllm]")
    monkeypatch.setattr("prunus.vllm.versions.installed", lambda: "0.33.1")
    refused(cli(*asked, "--method", "divprune"), "vLLM 0.33.1 was not tried")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--method", "clse"], ["inside the language model", "prunus batch"]),
        (["--method", "mmtok"], ["looks at the question"]),
        (["--method", "prumerge"], ["finds its own count"]),
        (["--method", "none"], ["prunes nothing"]),
        (["--method", "divprune", "--workers", "2"], ["--workers is for workers on Ray"]),
        (["--method", "divprune", "--address", "auto"], ["--address is for workers on Ray"]),
        (["--method", "divprune", "--cpus", "1"], ["--cpus is for"]),
        (["--method", "divprune", "--gpus", "1"], ["--gpus is for"]),
        (["--method", "divprune", "--device", "cpu"], ["--device is for"]),
        (["--method", "divprune", "--vllm", "eager"], ["NAME=VALUE"]),
        (["--method", "divprune", "--vllm", "dtype=half"], ["prunus gives dtype"]),
        (["--method", "divprune", "--engine", "vlm"], ["transformers, vllm"]),
        (["--method", "divprune", "--engine", "transformers", "--vllm", "a=1"], ["--engine vllm"]),
    ],
)
def test_what_makes_no_sense(
    cli: Cli,
    asked: tuple[object, ...],
    more: list[str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("prunus.vllm.versions.installed", lambda: "0.32.0")
    refused(cli(*asked, *more), *words)
    assert not (tmp_path / "out").exists()


def test_what_is_served_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunus.vllm.versions.installed", lambda: "0.32.0")
    check(Job("tiny-llava", "divprune", "64"), Engine())
    check(Job("tiny-qwen", "uniform", "0.5", ("layer=none",), "true"), Engine())
    with pytest.raises(PrunusError, match="layer=none"):
        check(Job("tiny-qwen", "uniform", "0.5"), Engine())


def test_arguments_of_vllm() -> None:
    given = ("max_model_len=4096", "enforce-eager=true", "quantization=fp8", "--seed=1")
    assert Engine(arguments=given).options() == {
        "max_model_len": 4096,
        "enforce_eager": True,
        "quantization": "fp8",
        "seed": 1,
    }


def test_a_folder_belongs_to_one_engine(tmp_path: Path) -> None:
    path = data_of(tmp_path, write_rows(tmp_path, "scenes", 2))
    job, rows = Job("tiny-llava", "divprune", "64"), scan(path)
    found = [_settings(job, path, rows, Options(), one) for one in (Workers(), Engine())]
    differing = {name for name in found[0] if found[0][name] != found[1][name]}
    assert differing == {"engine"} and json.dumps(found)


def test_parquet_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    Ledger(tmp_path, "jsonl", 10)
    with pytest.raises(PrunusError, match="pip install pyarrow, or write --format jsonl"):
        Ledger(tmp_path, "parquet", 10)
