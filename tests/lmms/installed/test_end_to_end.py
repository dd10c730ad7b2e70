"""lmms-eval with the installed package: both built-in models, pictures, videos, choices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import prunus
from prunus.evaluate.cells import make_cells
from prunus.evaluate.runner import evaluate
from prunus.loading import load
from prunus.tasks.sets import load_builtin_set

ROOT = Path(__file__).resolve().parents[3]
COUNT = 8

#: Its first layers are dense: an average of 8 is out of reach.
REFUSED = "pretrained=tiny-llava,method=fastv,keep=8,budget=true"

Ask = Callable[..., dict[str, Any]]


def answers(results: dict[str, Any], task: str) -> list[str]:
    return [one["filtered_resps"][0] for one in results["samples"][task]]


def facts(results: dict[str, Any], task: str) -> list[dict[str, Any]]:
    return [one["token_counts"][0]["prunus"] for one in results["samples"][task]]


def ours(model: str, data: str, method: str, keep: int) -> tuple[list[str], dict[str, float]]:
    """What ``prunus eval`` answers to the same questions, and what it cost."""
    loaded = load(model)
    [_, cell] = make_cells([method], [keep], [0])
    [outcome] = evaluate(*loaded, load_builtin_set(data).first(COUNT), [cell], batch=COUNT)
    return outcome.answers, outcome.figures


def test_the_installed_package_is_tried() -> None:
    assert not Path(prunus.__file__).is_relative_to(ROOT / "src")


@pytest.mark.parametrize(
    ("model", "data", "method"),
    [
        ("tiny-llava", "scenes", "clse"),
        ("tiny-llava", "scenes", "fastv"),
        ("tiny-qwen", "sizes", "divprune"),
        ("tiny-qwen", "videos", "vidcom2"),
    ],
)
def test_answers_are_those_of_prunus_eval(run: Ask, model: str, data: str, method: str) -> None:
    keep, task = 24, f"prunus_{data}"
    results = run([task], f"pretrained={model},method={method},keep={keep}")
    wanted, figures = ours(model, data, method, keep)
    assert answers(results, task) == wanted
    known = facts(results, task)
    for name in ("average", "kept"):
        mean = sum(one[name] for one in known) / len(known)
        assert mean == pytest.approx(figures[name], abs=1e-6)
    assert {one["kind"] for one in known} == {"video" if data == "videos" else "image"}


def test_costs_stand_where_lmms_eval_has_room_for_them(run: Ask) -> None:
    arguments = "pretrained=tiny-llava,method=clse,keep=64,budget=true"
    results = run(["prunus_scenes", "prunus_two"], arguments)
    throughput = results["throughput"]
    known = facts(results, "prunus_scenes") + facts(results, "prunus_two")
    for name, key in (("true_average_tokens", "average"), ("kept_tokens", "kept"), ("e2e", "e2e")):
        mean = sum(one[key] for one in known) / len(known)
        assert throughput[f"avg_{name}"] == pytest.approx(mean)
    assert throughput["avg_visual_tokens"] > 500
    assert 0 < throughput["avg_ttft"] <= throughput["avg_e2e"]
    assert all(abs(one["average"] - 64) <= 0.5 for one in facts(results, "prunus_scenes"))
    assert {one["visual"] for one in facts(results, "prunus_two")} == {1152}
    efficiency = results["efficiency"]["by_task"]["prunus_scenes"]
    ran = [one["token_counts"][0]["input_tokens"] for one in results["samples"]["prunus_scenes"]]
    assert efficiency["total_input_tokens"] == sum(ran)
    assert max(ran) < 576  # text and the average, not the prompt's 576 and text


def test_one_by_one_and_simple_tasks_answer_alike(run: Ask) -> None:
    arguments = "pretrained=tiny-qwen,method=clse,keep=0.3"
    together = run(["prunus_sizes"], arguments)
    alone = run(["prunus_sizes"], arguments, simple=True, batch=1)
    assert answers(together, "prunus_sizes") == answers(alone, "prunus_sizes")
    assert [one["average"] for one in facts(together, "prunus_sizes")] == [
        one["average"] for one in facts(alone, "prunus_sizes")
    ]


def test_a_video_file_and_the_frames_that_are_taken_of_it(run: Ask) -> None:
    dense = facts(run(["prunus_film"], "pretrained=tiny-qwen,frames=4"), "prunus_film")[0]
    half = run(["prunus_film"], "pretrained=tiny-qwen,frames=4,method=random,keep=0.5")
    assert answers(half, "prunus_film") != [""]
    pruned = facts(half, "prunus_film")[0]
    assert pruned["visual"] == dense["visual"] == dense["kept"]
    assert pruned["kept"] == dense["visual"] / 2
    more = facts(run(["prunus_film"], "pretrained=tiny-qwen,frames=8"), "prunus_film")[0]
    assert more["visual"] == 2 * dense["visual"]


def test_choices_are_made_by_the_smallest_loss(run: Ask) -> None:
    """What lmms-eval calls likelihoods are losses: with their sign turned all would be wrong."""
    for arguments in ("pretrained=tiny-llava", "pretrained=tiny-llava,method=clse,keep=256"):
        results = run(["prunus_choices"], arguments, simple=True)
        assert results["results"]["prunus_choices"]["acc,none"] >= 0.75
        for sample in results["samples"]["prunus_choices"]:
            losses = [loss for [loss, _] in sample["filtered_resps"]]
            best = min(range(len(losses)), key=losses.__getitem__)
            assert sample["acc"] == float(best == sample["target"])
    assert facts(results, "prunus_choices")[0]["kept"] == 256


def test_a_refusal_ends_the_run_with_an_error(tasks: Path, tmp_path: Path) -> None:
    """lmms-eval's command exits with 0 after any other exception."""
    done = command(tasks, tmp_path, REFUSED)
    assert done.returncode == 1, done.stderr
    assert "error: prunus: " in done.stderr and "fastv" in done.stderr
    assert not list(tmp_path.rglob("*results.json"))


def test_a_refusal_can_be_recorded_and_is_never_an_empty_answer(run: Ask) -> None:
    results = run(["prunus_scenes"], f"{REFUSED},on_error=record")
    assert all(one.startswith("[prunus refused: ") for one in answers(results, "prunus_scenes"))
    assert all(one["error"] for one in facts(results, "prunus_scenes"))
    assert results["results"]["prunus_scenes"]["accuracy,none"] == 0


def command(tasks: Path, output: Path, arguments: str) -> subprocess.CompletedProcess[str]:
    """lmms-eval's own command line."""
    words = ["--model", "prunus", "--model_args", arguments, "--include_path", str(tasks)]
    words += ["--tasks", "prunus_scenes", "--batch_size", "4", "--device", "cpu"]
    words += ["--output_path", str(output), "--log_samples"]
    return subprocess.run(
        [sys.executable, "-m", "lmms_eval", *words],
        cwd=output,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_eval_tasks_makes_a_comparison_and_goes_on_where_it_was(
    tasks: Path, tmp_path: Path, cli: Any
) -> None:
    words = ["eval", "--model", "tiny-llava", "--tasks", "prunus_scenes,prunus_choices"]
    words += ["--include", tasks, "--method", "clse,random", "--keep", "64", "--seeds", "1"]
    words += ["--output", tmp_path / "out", "--batch", "8", "--json"]
    first = cli(*words)
    assert first.code == 0, first.err
    [scenes, choices] = first.json["runs"]
    assert [row["key"] for row in scenes["rows"]] == ["clse|nominal|64", "random|nominal|64"]
    pictures = {one["images"][0] for one in rows(tasks, "prunus_scenes")}
    assert scenes["questions"] == 8 and scenes["images"] == len(pictures)
    row = scenes["rows"][0]
    assert row["kept"] == 64 and set(row["against"]) == {"dense", "random"}
    assert row["metrics"]["accuracy"] == pytest.approx(row["accuracy"]["value"])
    assert 0 < row["metrics"]["seconds to first token"] <= row["metrics"]["seconds to end"]
    assert choices["dense"]["accuracy"]["value"] == choices["dense"]["metrics"]["acc"]
    assert (tmp_path / "out" / "page.html").stat().st_size > 100_000
    assert "accuracy |" in (tmp_path / "out" / "table.md").read_text()
    again = cli(*words)
    assert "prunus_scenes: " in first.err and "prunus_scenes: " not in again.err
    assert again.json["runs"] == first.json["runs"]


def test_eval_tasks_refuses_what_is_not_there(tasks: Path, tmp_path: Path, cli: Any) -> None:
    words = ["eval", "--include", tasks, "--methods", "clse", "--output", tmp_path / "out"]
    unknown = cli(*words, "--tasks", "prunus_scene")
    assert unknown.code == 2 and "prunus_scenes" in unknown.err and not unknown.out
    words = [*words[:3], "--output", tmp_path / "out", "--tasks", "prunus_scenes"]
    words += ["--methods", "fastv", "--keep", "8", "--budget", "true", "--limit", "2"]
    refused = cli(*words)
    assert refused.code == 2 and "fastv@8" in refused.err and "--on-error skip" in refused.err
    recorded = cli(*words, "--on-error", "skip", "--json")
    assert recorded.code == 0
    [run] = recorded.json["runs"]
    assert run["rows"][0]["refused"].startswith("every question was refused: ")


def rows(tasks: Path, name: str) -> list[dict[str, Any]]:
    lines = (tasks / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
