"""The commands for real, on the built-in model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command_line import Cli

Q = ("--prompt", "how many objects are there?")


def test_run_prints_answer_and_report(cli: Cli, picture: Path) -> None:
    result = cli("run", picture, *Q, "--keep", 64, "--max-new-tokens", 3)
    assert result.code == 0
    assert "576 -> 64" in result.out
    assert "prefill FLOPs" in result.out


def test_run_json_is_one_object_with_the_promised_keys(cli: Cli, picture: Path) -> None:
    result = cli(
        "run", picture, *Q, "--keep", 64, "--max-new-tokens", 2, "--json", "--param", "cutoff=0.2"
    )
    assert result.code == 0
    facts = result.json
    assert facts["method"] == "clse" and facts["model"] == "tiny-llava"
    assert isinstance(facts["answer"], str) and facts["pruned"] is True
    tokens = facts["tokens"]
    assert (tokens["original"], tokens["nominal"], tokens["kept"]) == (576, 64, 64)
    depth = len(facts["per_layer"])
    assert facts["per_layer"] == [576] + [64] * (depth - 1)
    assert tokens["average"] == pytest.approx((576 + 64 * (depth - 1)) / depth)
    assert facts["params"]["cutoff"] == 0.2 and facts["params"]["keep"] == 64
    assert facts["flops"]["pruned"]["llm"] < 0.3 * facts["flops"]["dense"]["llm"]
    assert 1 <= facts["new_tokens"] <= 2


def test_a_share_counts_like_the_number_it_means(cli: Cli, picture: Path) -> None:
    facts = cli(
        "run", picture, *Q, "--keep", "0.25", "--max-new-tokens", 1, "--json", "--method", "uniform"
    ).json
    assert facts["tokens"]["kept"] == 144 and facts["method"] == "uniform"


def test_method_none_is_the_unmodified_model(cli: Cli, picture: Path) -> None:
    facts = cli("run", picture, *Q, "--method", "none", "--max-new-tokens", 3, "--json").json
    assert facts["tokens"]["kept"] == facts["tokens"]["original"] == 576
    assert facts["pruned"] is False and facts["flops"]["ratio"] == 1
    everything = cli("run", picture, *Q, "--keep", "1.0", "--max-new-tokens", 3, "--json").json
    assert everything["answer"] == facts["answer"]
    assert everything["kv_bytes"]["dense"] == facts["kv_bytes"]["dense"]


def test_several_images_in_one_prompt(cli: Cli, picture: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.jpg"
    Image.new("RGB", (300, 120), (10, 200, 30)).save(wide)
    overlay = tmp_path / "deep" / "kept.png"
    common = ("--keep", 64, "--max-new-tokens", 1, "--json")
    plain = cli("run", picture, wide, *Q, *common, "--save-overlay", overlay).json
    assert plain["tokens"]["original"] == 2 * 576 and plain["tokens"]["kept"] == 2 * 64
    assert plain["overlay"] == str(overlay)
    with Image.open(overlay) as drawn:
        assert drawn.format == "PNG" and drawn.height > drawn.width / 2  # two rows of three
    placed = cli("run", picture, wide, "--prompt", "is <image> in <image>?", *common).json
    assert placed["tokens"]["original"] == 2 * 576


def test_demo_draws_one_picture_and_answers_at_each_budget(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new" / "demo.png"
    result = cli("demo", "--output", path, "--json")
    assert result.code == 0
    facts = result.json
    assert [row["tokens"]["kept"] for row in facts["budgets"]] == [576, 192, 128, 64]
    assert all(len(row["answers"]) == 3 for row in facts["budgets"])
    assert len(facts["questions"]) == 3
    costs = [row["flops"]["pruned"]["total"] for row in facts["budgets"]]
    assert costs == sorted(costs, reverse=True)
    times = [row["time"] for row in facts["budgets"]]
    assert times[0]["first_ratio"] == [1.0, 1.0, 1.0] == times[0]["token_ratio"]
    assert all(time["first"] > time["token"] > 0 for time in times)
    with Image.open(path) as drawn:
        assert drawn.format == "PNG" and drawn.width > 3 * drawn.height / 2


def test_methods_and_models(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = cli("methods", "--json").json
    assert {"clse", "random", "uniform"} <= set(methods)
    keep = next(p for p in methods["clse"]["parameters"] if p["name"] == "keep")
    assert keep["default"] == pytest.approx(1 / 3) and keep["help"]
    assert methods["clse"]["kind"] == "drop" and "2606.24165" in methods["clse"]["paper"]
    models = cli("models", "--json").json
    assert "tiny-llava" in models["builtin"] and "llava" in models["families"]
    assert models["families"]["llava"]["methods"]["clse"] == {"image": ""}
    merging = models["families"]["llava-next"]["methods"]["evoprune"]["image"]
    assert merging.startswith("refused: ")
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli("methods").out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    listed = [line.split() for line in lines if line.startswith("  ")]
    assert sorted(words[0] for words in listed) == list(methods)  # each on one line
    signs = {words[0]: words[1] for words in listed}
    assert signs["visipruner"] == "q*" and signs["cdpruner"] == "q"
    places = [line for line in lines if line.endswith(":")]
    assert places[0] == "in the vision tower:" and len(places) == 4
    listed = cli("models").out
    assert "tiny-llava" in listed and all(len(line) <= 80 for line in listed.splitlines())


def test_one_family_explained(cli: Cli) -> None:
    text = cli("models", "llava-next").out
    assert "images:" in text and "evoprune" in text.split("refused:")[0]
    assert all(len(line) <= 80 for line in text.splitlines())
    columns = {line.rindex(" yes") for line in text.splitlines() if line.endswith(" yes")}
    assert len(columns) == 1  # however long the names of methods are
    assert cli("models", "LLaVA_NeXT").out == text
    unknown = cli("models", "llva")
    assert unknown.code == 2 and "did you mean 'llava'?" in unknown.err
    assert "`prunus models` lists them all" in unknown.err


def test_one_method_explained(cli: Cli) -> None:
    text = cli("methods", "clse").out
    for words in ("2606.24165", "temperature=0.1", "clse@attn-released: variant=released"):
        assert words in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "204.0 of 576 visual tokens per layer" in text  # (2 * 576 + 31 * 192) / 32, less 12
    assert "least that it can be asked for: 19.0" in text and "25 of 25 families" in text
    assert "at decoder layers 8, 16, 24" not in text and cli("methods", "CLSE").out == text
    assert cli("methods", "clse@hybrid", "--json").json["clse"]["presets"]["attn"]
    unknown = cli("methods", "clsee")
    assert unknown.code == 2 and "did you mean 'clse'" in unknown.err


def test_of_a_method_in_a_file_it_is_said_that_nobody_tried_it(cli: Cli, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from dataclasses import dataclass\nfrom prunus.pruners.uniform import Uniform\n\n\n"
        "@dataclass(frozen=True)\nclass Own(Uniform):\n    name = 'own-of-a-file'\n"
    )
    assert "not tried here; by what it declares it runs on" in cli("methods", f"{own}:Own").out
    assert "not tried" not in cli("methods", "uniform").out


def test_every_method_parameter_has_help(cli: Cli) -> None:
    for name, facts in cli("methods", "--json").json.items():
        assert facts["summary"], name
        for parameter in facts["parameters"]:
            assert parameter["help"], (name, parameter["name"])


def test_as_a_program(picture: Path) -> None:
    command = [sys.executable, "-m", "prunus", "run", str(picture), *Q]
    good = subprocess.run(
        [*command, "--keep", "64", "--max-new-tokens", "1", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["tokens"]["kept"] == 64
    bad = subprocess.run([*command, "--keep", "0"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2 and bad.stdout == ""
    assert bad.stderr.startswith("error: ") and "Traceback" not in bad.stderr
