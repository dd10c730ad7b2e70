"""Batches change nothing; an evaluation from the command line writes what it says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunus
from prunus.analyse.ranking import ranking_by_layer
from prunus.evaluate import Cell, EvalSet, Outcome, discrimination, evaluate, make_cells, summarise
from prunus.evaluate.asker import answer_tokens
from prunus.evaluate.evidence import NOTHING, shows_object
from prunus.evaluate.output import results
from prunus.evaluate.pictures import draw_choices
from prunus.evaluate.runner import Evaluation
from prunus.inference.batches import encode, in_batches, left_padded
from tests.support.command_line import Cli
from tests.support.qwen_processor import save_qwen


def test_batched_answers_are_those_of_single_prompts(tiny: Any, questions: EvalSet) -> None:
    model, processor = tiny
    few = questions.first(6)
    cells = make_cells(["clse-released", "ground-truth", "blind"], [64])
    # batches of five mix lengths, so that some rows are padded
    together = evaluate(model, processor, few, cells, batch=5, images_at_once=2)
    alone = evaluate(model, processor, few, cells, batch=1)
    for many, one in zip(together, alone, strict=True):
        assert many.answers == one.answers
        assert many.figures == pytest.approx(one.figures)
        assert [e.objects for e in many.evidence] == pytest.approx(
            [e.objects for e in one.evidence], nan_ok=True
        )


@pytest.mark.parametrize("name", ["clse", "evoprune", "evoprune+clse"])
def test_answers_are_those_of_the_plain_way(tiny: Any, questions: EvalSet, name: str) -> None:
    model, processor = tiny
    few = questions.first(2)
    cells = make_cells([name], [64])
    found = evaluate(model, processor, few, cells)
    for number, query in enumerate(few.queries):
        content = [{"type": "image"}, {"type": "text", "text": query.text}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        inputs = processor(images=few.images[query.image](), text=prompt, return_tensors="pt")
        start = inputs["input_ids"].shape[1]
        plain = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        with prunus.prune(model, cells[1].method) as run:
            pruned = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        for outcome, output in zip(found, (plain, pruned), strict=True):
            text = processor.tokenizer.decode(output[0, start:], skip_special_tokens=True)
            assert outcome.answers[number] == text.strip()
    assert found[1].figures["average"] == run.report()["tokens"]["average"]
    assert found[0].figures == {}


def test_batches_keep_lengths_together_and_lose_nothing(tiny: Any, questions: EvalSet) -> None:
    _, processor = tiny
    image = questions.images[0]()
    encoded = [
        encode(processor, n, query.text, image)[0] for n, query in enumerate(questions.queries[:60])
    ]
    batches = list(in_batches(encoded, 8))
    assert sorted(one.query for group in batches for one in group) == list(range(60))
    lengths = [len(one.ids) for group in batches for one in group]
    assert lengths == sorted(lengths) and max(len(group) for group in batches) == 8
    padded = left_padded([torch.tensor([7]), torch.tensor([1, 2, 3])], pad=0)
    assert padded["input_ids"].tolist() == [[0, 0, 7], [1, 2, 3]]
    assert padded["attention_mask"].tolist() == [[0, 0, 1], [1, 1, 1]]
    kinds = [
        {"mm_token_type_ids": torch.tensor([1])},
        {"mm_token_type_ids": torch.tensor([0, 1, 0])},
    ]
    padded = left_padded([torch.tensor([7]), torch.tensor([1, 2, 3])], 0, kinds)
    assert padded["mm_token_type_ids"].tolist() == [[0, 0, 1], [0, 1, 0]]


def test_a_model_with_images_of_any_size(tmp_path: Path, questions: EvalSet) -> None:
    """Batched answers are those to each question alone, with positions of three rows."""
    save_qwen(tmp_path)
    model, processor = prunus.load(tmp_path)
    six = questions.first(6)
    few = replace(
        six, scenes=(None,) * len(six.images)
    )  # its cells do not divide the canvas of a scene
    dense, clse = evaluate(model, processor, few, make_cells(["clse"], [12]), batch=6)
    options = {"max_new_tokens": answer_tokens(processor, few), "do_sample": False}
    for number, query in enumerate(few.queries):
        content = [{"type": "image"}, {"type": "text", "text": query.text}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        inputs = processor(images=few.images[query.image](), text=prompt, return_tensors="pt")
        start = inputs["input_ids"].shape[1]
        plain = model.generate(**inputs, **options)
        with prunus.prune(model, "clse", keep=12):
            pruned = model.generate(**inputs, **options)
        for outcome, output in zip((dense, clse), (plain, pruned), strict=True):
            text = processor.tokenizer.decode(output[0, start:], skip_special_tokens=True)
            assert outcome.answers[number] == text.strip()
    assert clse.figures["kept"] == 12 and clse.figures["original"] == 100


def test_the_other_image_is_another_one(tiny: Any, questions: EvalSet) -> None:
    model, processor = tiny
    few = questions.first(5)
    swapped, own = evaluate(model, processor, few, make_cells(["other-image"], [64]))[::-1]
    assert swapped.cell.shown == "other" and own.cell.name == "dense"
    assert len({query.image for query in few.queries}) > 1
    assert not any(one is not NOTHING for one in swapped.evidence)


def test_the_true_budget_of_the_ground_truth_is_one(tiny: Any, questions: EvalSet) -> None:
    """For a true budget it is cut before the language model, else where random choice is."""
    model, processor = tiny
    for budget, average in (("true", 64), ("nominal", (576 + 11 * 64) / 12)):
        cells = make_cells(["ground-truth"], [64])
        evaluation = Evaluation(model, processor, questions.first(2), cells, budget=budget)
        evaluation.run()
        [_, truth] = evaluation.so_far()[1]
        assert truth.figures["average"] == pytest.approx(average)


def test_summary_of_made_up_answers(questions: EvalSet) -> None:
    few = questions.first(6)
    cells = make_cells(["random"], [1 / 9], [0, 1])
    figures = {
        "original": 576.0, "kept": 64.0, "average": 106.7, "resident": 106.7,
        "flops_ratio": 0.5, "llm_flops_ratio": 0.2, "kv_ratio": 0.2,
    }  # fmt: skip
    marks = ["111100", "110000", "001100"]
    outcomes = [
        Outcome(cell, [""] * 6, np.array([m == "1" for m in mark]), [NOTHING] * 6,
                figures if cell.prunes else {})
        for cell, mark in zip(cells, marks, strict=True)
    ]  # fmt: skip
    dense, random = summarise(few, outcomes)
    assert dense.difference is None and dense.accuracy.value == pytest.approx(4 / 6)
    assert random.nominal == 64 and random.seeds == (0, 1)
    assert random.accuracy.value == pytest.approx(2 / 6)
    assert random.changed == (2.0, 0.0) and random.objects is None
    assert random.difference is not None
    assert random.difference.value == pytest.approx(-2 / 6)
    found = results(few, outcomes, {"model": "none"})
    assert found["right"] == dict(
        zip(["dense", "random@0.1111#0", "random@0.1111#1"], marks, strict=True)
    )
    assert found["properties"] == []  # random is a method, too: no control was asked
    with_blind = [*outcomes, replace(outcomes[0], cell=Cell("blind", shown="none"))]
    assert [one.name for one in discrimination(few, summarise(few, with_blind))] == [
        "random loses accuracy", "blind is near chance"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="dense model"):
        summarise(few, outcomes[1:])


def test_command_line(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "results"
    result = cli(
        "eval", "--limit", 5, "--methods", "clse,random,uniform,ground-truth,blind", "--keep", "64",
        "--seeds", 2, "--output", folder, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    printed = result.json
    saved = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
    assert {key: saved[key] for key in saved} == {key: printed[key] for key in saved}
    assert [row["name"] for row in saved["rows"]] == [
        "dense", "blind", "clse", "random", "uniform", "ground-truth",
    ]  # fmt: skip
    assert all(set(text) <= {"0", "1"} and len(text) == 5 for text in saved["right"].values())
    clse = saved["rows"][2]
    assert clse["nominal"] == 64 and clse["figures"]["average"] == pytest.approx(
        (576 + 11 * 64) / 12
    )
    assert saved["rows"][5]["asked"] == pytest.approx(1.0)
    assert len(saved["properties"]) == 4 and saved["versions"]["prunus"] == prunus.__version__
    lines = (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5 and set(json.loads(lines[0])["given"]) == set(saved["right"])
    assert "| clse | 64 | 106.7 |" in (folder / "accuracy.md").read_text(encoding="utf-8")


def test_command_line_with_a_file(cli: Cli, picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [
        {"image": str(picture), "question": "how many objects are there?", "answer": "four"},
        {"image": str(picture), "question": "is there a red star?", "answer": "No.", "type": "yn"},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    result = cli("eval", "--data", path, "--methods", "uniform", "--keep", "64,0.5")
    assert result.code == 0, result.err
    assert "uniform" in result.out and "288" in result.out
    folder = tmp_path / "drawn"
    drawn = cli("eval", "--data", path, "--methods", "uniform", "--keep", 64, "--limit", 1,
                "--pictures", 1, "--output", folder)  # fmt: skip
    assert drawn.code == 0 and (folder / "kept.png").is_file()
    refused = cli("eval", "--data", path, "--methods", "ground-truth")
    assert refused.code == 2 and "needs the scenes" in refused.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--methods", "clsse"),
        ("--methods", "clse,,attn"),
        ("--keep", "0"),
        ("--keep", "64,x"),
        ("--data", "missing.jsonl"),
        ("--model", "tiny-lava"),
        ("--output", __file__),
        ("--pictures", "2"),
    ],
)
def test_bad_arguments(cli: Cli, arguments: tuple[str, str]) -> None:
    result = cli("eval", "--limit", 1, *arguments)
    assert result.code == 2 and len(result.err.strip().splitlines()) == 1, result.err


def test_pictures_and_layers(tiny: Any, questions: EvalSet, tmp_path: Path) -> None:
    model, processor = tiny
    cells = make_cells(["clse", "uniform", "ground-truth"], [64])
    path = draw_choices(model, processor, questions, [0], cells, tmp_path / "kept.png")
    assert path.stat().st_size > 10_000
    one = replace(questions, queries=questions.queries[1:2])
    found = ranking_by_layer(model, processor, one)
    assert {len(values) for values in found.values()} == {11}
    assert all(0 <= ranking <= 1 and 0 <= share <= 1 for ranking, share in found["attention"])


def test_patches_that_show_objects(questions: EvalSet) -> None:
    scene = questions.scenes[0]
    assert scene is not None
    shown = shows_object(scene, 24, 24).reshape(24, 24)
    star = scene.objects[2]
    assert star.kind == "star"  # filled in the middle
    x, y = star.center
    assert shown[int(y) // 8, int(x) // 8]
    assert 10 < shown.sum() < 100
