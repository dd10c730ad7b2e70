"""Whole analyses: on a model with images of any size, and from the command line."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import prunus
from prunus.analyse import ANALYSES, Context, analyse, every_prompt, spread
from prunus.analyse.ablations import Ungated
from prunus.analyse.measure import DENSE, measure
from prunus.analyse.runner import total_work
from prunus.evaluate import load_builtin_set
from prunus.pruners.clse import CLSE
from prunus.tasks.sample import load_sample
from tests.support.command_line import Cli, refused
from tests.support.qwen_processor import save_qwen


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return prunus.load("tiny-llava")


def test_every_analysis_of_a_model_with_images_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunus.analyse.context._OPEN_ANSWER", 2)
    save_qwen(tmp_path)
    model, processor = prunus.load(tmp_path)
    image = load_sample()[0]
    asked = every_prompt([image, image.resize((120, 200))], ["what is this ?", "a in b ?"])
    context = Context(model, processor, asked, batch=4)
    done: list[int] = []
    results = {result.name: result for result in analyse(context, step=done.append)}
    assert list(results) == list(ANALYSES)
    assert sum(done) == total_work(context, list(ANALYSES))
    assert context.measure_name == "agreement"
    for result in results.values():
        for table in result.tables:
            assert table.rows, table.stem
    dense = results["sweep"].tables[0].rows[0]
    assert dense["agreement"] == 1.0 and dense["divergence"] == 0.0
    assert len(results["fusion"].tables[2].rows) == 4  # two questions about each image
    assert any("AUROC" in note for note in results["spectral"].notes)
    knocked = results["knockout"].tables[0].rows
    assert all(row["divergence"] >= 0 for row in knocked) and len(knocked) == 1 + 6 * 5
    json.dumps([result.as_dict() for result in results.values()], allow_nan=False)


def test_what_a_setting_does_is_measured_once(tiny: Any) -> None:
    pool = load_builtin_set()
    context = Context(*tiny, spread(pool, 3), pool, batch=2)
    done: list[int] = []
    dense = measure(context, DENSE, done.append)
    assert dense.same.tolist() == [1, 1, 1] and dense.divergence.tolist() == [0, 0, 0]
    assert dense.figures == {}
    first = measure(context, (CLSE(keep=64),), done.append)
    again = measure(context, (CLSE(keep=64),), done.append)
    assert again is first and done == [2, 1, 2, 1, 3]
    assert first.figures["kept"] == 64 and first.figures["average"] == (576 + 11 * 64) / 12
    assert 0.1 < first.figures["flops_ratio"] < 0.2
    # one question by itself: the same answer and the same divergence
    number = 1
    query = context.data.queries[number]
    text = f"USER: <image>\n{query.text} ASSISTANT:"
    model, processor = tiny
    inputs = processor(images=pool.images[query.image](), text=text, return_tensors="pt")
    with torch.inference_mode():
        plain = model(**inputs).logits[0, -1].log_softmax(-1)
        with prunus.prune(model, CLSE(keep=64)):
            pruned = model(**inputs).logits[0, -1].log_softmax(-1)
    wanted = float((plain.exp() * (plain - pruned)).sum())
    assert first.divergence[number] == pytest.approx(wanted, abs=1e-4)


def test_no_gate_is_the_product(tiny: Any) -> None:
    model, processor = tiny
    image, questions = load_sample()
    text = f"USER: <image>\n{questions[0].text} ASSISTANT:"
    inputs = processor(images=image, text=text, return_tensors="pt")
    scores = {}
    for name, method in {
        "product": Ungated(64, "hybrid"),
        "intensity": CLSE(64),
        "attention": CLSE(64, score_type="attn"),
    }.items():
        with torch.inference_mode(), prunus.prune(model, method) as run:
            model(**inputs)
            scores[name] = run.trace[0].scores[0][0]
    assert torch.allclose(scores["product"], scores["intensity"] * scores["attention"])


def test_the_command_writes_what_it_says(cli: Cli, tmp_path: Path) -> None:
    result = cli(
        "analyse", "sinks", "spectral", "fusion", "--limit", 2, "--output", tmp_path, "--json"
    )
    assert result.code == 0, result.err
    found = result.json
    assert found["settings"]["questions"] == 2 and found["settings"]["measure"] == "accuracy"
    assert set(found["analyses"]) == {"sinks", "spectral", "fusion"}
    assert {str(path) for path in tmp_path.iterdir()} == set(found["files"])
    index = (tmp_path / "index.md").read_text()
    for name, analysis in found["analyses"].items():
        assert json.loads((tmp_path / f"{name}.json").read_text())["facts"] == analysis["facts"]
        for stem, table in analysis["tables"].items():
            with (tmp_path / f"{stem}.csv").open() as file:
                lines = list(csv.DictReader(file))
            assert len(lines) == len(table["rows"]) and f"[{stem}.csv]({stem}.csv)" in index
        for stem in analysis["pictures"]:
            assert (tmp_path / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
            assert f"({stem}.png)" in index
    scores = found["analyses"]["spectral"]["tables"]["spectral-auroc"]["rows"]
    at_one = {row["score"]: row["objects"] for row in scores if row["layer"] == 1}
    assert at_one["intensity, global"] == at_one["intensity, adjacent"] > 0.9
    assert 2 in {row["prompts"] for row in found["analyses"]["fusion"]["tables"]["fusion"]["rows"]}


def test_prompts_of_ones_own(cli: Cli, picture: Path, tmp_path: Path) -> None:
    result = cli(
        *("analyse", "sinks", "--image", picture, "--output", tmp_path / "new" / "folder"),
        *("--prompt", "what color is the star?", "--prompt", "is there a ring?"),
    )
    assert result.code == 0, result.err
    assert "2 questions about 1 images" in result.out and "agreement" in result.out
    assert (tmp_path / "new" / "folder" / "sinks.png").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["knokout"], ["did you mean 'knockout'", "sweep"]),
        (["sinks", "sinks"], ["twice"]),
        (["--limit", "0"], ["--limit"]),
        (["--seed", "-1"], ["--seed"]),
        (["--prompt", "what?"], ["add --image"]),
        (["--data", "q.jsonl", "--prompt", "what?"], ["not both"]),
        (["--data", "/no/such.jsonl"], ["no such file"]),
        (["--model", "tinyllava"], ["did you mean 'tiny-llava'"]),
        (["--output", "/dev/null/x"], ["--output"]),
    ],
)
def test_bad_input(cli: Cli, options: list[str], words: list[str]) -> None:
    refused(cli("analyse", *options), *words)


def test_images_without_a_prompt(cli: Cli, picture: Path) -> None:
    refused(cli("analyse", "--image", picture), "add --prompt")
    refused(cli("analyse", "--image", picture, "--prompt", " "), "empty")
    refused(cli("analyse", "--image", picture.parent / "no.png", "--prompt", "x"), "no such image")


def test_names_are_checked_in_python_too(tiny: Any) -> None:
    pool = load_builtin_set()
    context = Context(*tiny, spread(pool, 1), pool)
    with pytest.raises(ValueError, match="unknown analysis 'x'"):
        analyse(context, ["x"])
    with pytest.raises(ValueError, match="each once"):
        analyse(context, ["sinks", "sinks"])
    with pytest.raises(ValueError, match="no questions"):
        Context(*tiny, pool.__class__("none", (), (), (), {}))
